//! What one LBA may hold, spelt out value by value. Not covered: where a value comes from.

/// One value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Value {
    Zero,
    /// Whatever the LBA of that volume held before the recording began.
    Old(usize),
    /// The same, seen not to be zeros.
    Data(usize),
    /// The same, seen to be zeros.
    Blank(usize),
    /// The block of the write of this number.
    Write(u64),
}

impl Value {
    /// Old data may happen to be zeros, and those of two volumes may happen to agree. Nothing is
    /// like the block of a write but itself.
    fn may_equal(self, other: Value) -> bool {
        match (self, other) {
            (Value::Write(one), Value::Write(two)) => one == two,
            (Value::Write(_), _) | (_, Value::Write(_)) => false,
            (Value::Data(_), Value::Zero | Value::Blank(_)) => false,
            (Value::Zero | Value::Blank(_), Value::Data(_)) => false,
            _ => true,
        }
    }
}

/// The values an LBA may hold; anything at all if the list is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Possible(Option<Vec<Value>>);

impl Possible {
    pub(super) const ANYTHING: Possible = Possible(None);

    pub(super) fn one(value: Value) -> Possible {
        Possible(Some(vec![value]))
    }

    pub(super) fn or(self, other: &Possible) -> Possible {
        let (Some(mut all), Some(more)) = (self.0, &other.0) else { return Possible::ANYTHING };
        for value in more {
            if !all.contains(value) {
                all.push(*value);
            }
        }
        Possible(Some(all))
    }

    /// Whether nothing that the one may be can equal anything that the other may be.
    pub(super) fn differs_from(&self, other: &Possible) -> bool {
        match (&self.0, &other.0) {
            (Some(mine), Some(theirs)) => {
                mine.iter().all(|one| theirs.iter().all(|two| !one.may_equal(*two)))
            }
            _ => false,
        }
    }

    /// As [`Possible::differs_from`] for two moments of one LBA: what old data was once seen to be
    /// is not made use of, as in the first judge, who keeps no such list for each LBA.
    pub(super) fn changed_since(&self, other: &Possible) -> bool {
        let plain = |possible: &Possible| {
            let plain = |value: &Value| match value {
                Value::Data(volume) | Value::Blank(volume) => Value::Old(*volume),
                other => *other,
            };
            Possible(possible.0.as_ref().map(|all| all.iter().map(plain).collect()))
        };
        plain(self).differs_from(&plain(other))
    }

    /// What it is if it turns out to be zeros; `None` if it cannot. Old data stays old data: what
    /// is brought back from there may be told of as one or the other.
    pub(super) fn if_zero(&self) -> Option<Option<Value>> {
        let blank = |value: &Value| match value {
            Value::Old(volume) | Value::Blank(volume) => Some(Value::Blank(*volume)),
            Value::Zero | Value::Data(_) | Value::Write(_) => None,
        };
        match self.0.iter().flatten().find_map(blank) {
            Some(blank) => Some(Some(blank)),
            None => self.if_it_is(Value::Zero),
        }
    }

    /// What it is if it turns out to be this value; `None` if it cannot.
    pub(super) fn if_it_is(&self, value: Value) -> Option<Option<Value>> {
        let may = self.0.as_ref().is_none_or(|all| all.iter().any(|own| own.may_equal(value)));
        may.then_some(Some(value))
    }

    /// Whether each can be but one value, and it is the same.
    pub(super) fn is_surely(&self, other: &Possible) -> bool {
        matches!((self.0.as_deref(), other.0.as_deref()), (Some([one]), Some([two])) if one == two)
    }
}

impl Possible {
    /// What it is if it turns out to be what was there before the recording; `None` if it cannot.
    pub(super) fn if_old(&self) -> Option<Option<Value>> {
        let Some(all) = &self.0 else { return Some(None) };
        let old =
            |value: &&Value| matches!(value, Value::Old(_) | Value::Data(_) | Value::Blank(_));
        all.iter().find(old).map(|old| Some(*old))
    }

    /// What it is if it turns out to be a block of this run that nobody wrote there; `None` if it
    /// cannot.
    pub(super) fn if_misplaced(&self) -> Option<Option<Value>> {
        self.0.is_none().then_some(None)
    }

    /// What it is if it turns out to be neither zeros nor the block of a write: data from before the
    /// recording, or something that nobody knows. `None` if it cannot.
    pub(super) fn if_other(&self) -> Option<Option<Value>> {
        let Some(all) = &self.0 else { return Some(None) };
        all.iter().find_map(|value| match value {
            Value::Old(volume) | Value::Data(volume) => Some(Some(Value::Data(*volume))),
            Value::Zero | Value::Blank(_) | Value::Write(_) => None,
        })
    }
}
