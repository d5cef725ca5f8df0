//! What one LBA may hold, spelt out value by value. Not covered: where a value comes from.

/// One value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Value {
    Zero,
    /// Whatever the LBA of that volume held before the recording began.
    Old(usize),
    /// The same, seen not to be zeros.
    Data(usize),
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
            (Value::Data(_), Value::Zero) | (Value::Zero, Value::Data(_)) => false,
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

    /// As [`Possible::differs_from`] for two moments of one LBA: that old data was once seen not to be
    /// zeros is not made use of, as in the first judge, who keeps no such list for each LBA.
    pub(super) fn changed_since(&self, other: &Possible) -> bool {
        let plain = |possible: &Possible| {
            let plain = |value: &Value| match value {
                Value::Data(volume) => Value::Old(*volume),
                other => *other,
            };
            Possible(possible.0.as_ref().map(|all| all.iter().map(plain).collect()))
        };
        plain(self).differs_from(&plain(other))
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
        all.iter()
            .find(|value| matches!(value, Value::Old(_) | Value::Data(_)))
            .map(|old| Some(*old))
    }

    /// What it is if it turns out to be neither zeros nor the block of a write: data from before the
    /// recording, or something that nobody knows. `None` if it cannot.
    pub(super) fn if_other(&self) -> Option<Option<Value>> {
        match self.if_old()? {
            Some(Value::Old(volume) | Value::Data(volume)) => Some(Some(Value::Data(volume))),
            _ => Some(None),
        }
    }
}
