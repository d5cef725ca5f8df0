//! What one cell of a map shows, and how: a letter and a colour, so that no colour has to be told
//! from another. Not covered: drawing it.

/// What a cell shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cell {
    /// Nothing happened there, or nothing is said of it.
    Empty,
    /// Written.
    Write,
    /// The same bytes written again.
    Rewrite,
    /// Zeroed, by whatever command.
    Zero,
    /// Discarded.
    Discard,
    /// May have been put back by a rollback.
    Rollback,
    /// Came or went by a change of size.
    Resize,
    /// A write that failed, or what nobody knows.
    Unsure,
    /// Written by a copy.
    Copied,
    /// Had to be reported.
    Must,
    /// Could be reported.
    May,
    /// Was reported.
    Reported,
    /// Expected and answered alike.
    Agreed,
    /// Had to be there and is not.
    Missed,
    /// Is there and must not be.
    Extra,
    /// Holds what it must not.
    Wrong,
    /// Holds zeros.
    HoldsZero,
    /// Holds the block of the so-manieth write of this scenario.
    Holds(u32),
    /// Holds what was there before the run.
    HoldsOld,
    /// Holds a block that belongs elsewhere, or half of one.
    HoldsMisplaced,
    /// Holds something else.
    HoldsOther,
    /// May hold one of several things.
    HoldsSeveral,
    /// Lies past the end of the volume.
    Outside,
}

/// The look of a cell: its colours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// No more than a place.
    Empty,
    /// Data came.
    Write,
    /// Data was written again.
    Rewrite,
    /// Zeros came.
    Zero,
    /// Data went.
    Discard,
    /// Data came back.
    Rollback,
    /// The size changed.
    Resize,
    /// Not known.
    Unsure,
    /// A claim that must hold.
    Must,
    /// A claim that may hold.
    May,
    /// As it has to be.
    Good,
    /// Too little, or wrong.
    Bad,
    /// Too much.
    Extra,
    /// Contents.
    Holds,
    /// No place at all.
    Outside,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 15] = [
        Class::Empty,
        Class::Write,
        Class::Rewrite,
        Class::Zero,
        Class::Discard,
        Class::Rollback,
        Class::Resize,
        Class::Unsure,
        Class::Must,
        Class::May,
        Class::Good,
        Class::Bad,
        Class::Extra,
        Class::Holds,
        Class::Outside,
    ];
    /// Its name in style sheets.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Empty => "empty",
            Class::Write => "write",
            Class::Rewrite => "rewrite",
            Class::Zero => "zero",
            Class::Discard => "discard",
            Class::Rollback => "rollback",
            Class::Resize => "resize",
            Class::Unsure => "unsure",
            Class::Must => "must",
            Class::May => "may",
            Class::Good => "good",
            Class::Bad => "bad",
            Class::Extra => "extra",
            Class::Holds => "holds",
            Class::Outside => "outside",
        }
    }
    /// Ground and letter on a light page, as RGB. Letters have a contrast of 4.5 at least.
    pub const fn colours(self) -> ([u8; 3], [u8; 3]) {
        const WHITE: [u8; 3] = [255, 255, 255];
        match self {
            Class::Empty => ([240, 242, 245], [240, 242, 245]),
            Class::Write => ([29, 78, 216], WHITE),
            Class::Rewrite => ([191, 219, 254], [30, 58, 138]),
            Class::Zero => ([15, 118, 110], WHITE),
            Class::Discard => ([180, 83, 9], WHITE),
            Class::Rollback => ([109, 40, 217], WHITE),
            Class::Resize => ([190, 24, 93], WHITE),
            Class::Unsure => ([107, 114, 128], WHITE),
            Class::Must => ([55, 65, 81], WHITE),
            Class::May => ([209, 213, 219], [17, 24, 39]),
            Class::Good => ([22, 101, 52], WHITE),
            Class::Bad => ([185, 28, 28], WHITE),
            Class::Extra => ([162, 28, 175], WHITE),
            Class::Holds => ([224, 231, 255], [30, 27, 75]),
            Class::Outside => ([255, 255, 254], [107, 114, 129]),
        }
    }
}

/// Letters of writes that contents are told by.
const LETTERS: &[u8] = b"123456789abcdefghijkmnpqrstuvwyz";

impl Cell {
    /// Its colours.
    pub const fn class(self) -> Class {
        match self {
            Cell::Empty => Class::Empty,
            Cell::Write | Cell::Copied => Class::Write,
            Cell::Rewrite => Class::Rewrite,
            Cell::Zero => Class::Zero,
            Cell::Discard => Class::Discard,
            Cell::Rollback => Class::Rollback,
            Cell::Resize => Class::Resize,
            Cell::Unsure => Class::Unsure,
            Cell::Must | Cell::Reported => Class::Must,
            Cell::May => Class::May,
            Cell::Agreed => Class::Good,
            Cell::Missed | Cell::Wrong => Class::Bad,
            Cell::Extra => Class::Extra,
            Cell::HoldsZero
            | Cell::Holds(_)
            | Cell::HoldsOld
            | Cell::HoldsMisplaced
            | Cell::HoldsOther
            | Cell::HoldsSeveral => Class::Holds,
            Cell::Outside => Class::Outside,
        }
    }
    /// Its letter.
    pub fn letter(self) -> char {
        match self {
            Cell::Empty => ' ',
            Cell::Write => 'W',
            Cell::Rewrite => 'w',
            Cell::Zero => 'Z',
            Cell::Discard => 'D',
            Cell::Rollback => 'R',
            Cell::Resize => 'S',
            Cell::Unsure | Cell::HoldsOther => '?',
            Cell::Copied => 'C',
            Cell::Must | Cell::Reported => '#',
            Cell::May => '~',
            Cell::Agreed => '=',
            Cell::Missed => '!',
            Cell::Wrong => 'X',
            Cell::Extra => '+',
            Cell::HoldsZero => '0',
            Cell::Holds(write) => {
                let letter = usize::try_from(write).ok().and_then(|write| write.checked_sub(1));
                let letter = letter.and_then(|write| LETTERS.get(write));
                letter.map_or('>', |letter| char::from(*letter))
            }
            Cell::HoldsOld => 'o',
            Cell::HoldsMisplaced => 'x',
            Cell::HoldsSeveral => '*',
            Cell::Outside => '/',
        }
    }
    /// Colours and letter.
    pub fn look(self) -> (Class, char) {
        (self.class(), self.letter())
    }
    /// Every look that a cell can have.
    pub fn all() -> Vec<Cell> {
        use Cell as C;
        let mut all = vec![
            C::Empty,
            C::Write,
            C::Rewrite,
            C::Zero,
            C::Discard,
            C::Rollback,
            C::Resize,
            C::Unsure,
            C::Copied,
            C::Must,
            C::May,
            C::Agreed,
            C::Missed,
            C::Extra,
            C::Wrong,
            C::HoldsZero,
            C::HoldsOld,
            C::HoldsMisplaced,
            C::HoldsOther,
            C::HoldsSeveral,
            C::Outside,
        ];
        all.extend((0..=u32::try_from(LETTERS.len()).unwrap_or(0)).map(|n| C::Holds(n + 1)));
        all
    }
    /// The cell that stands for it in a legend.
    pub const fn kind(self) -> Cell {
        match self {
            Cell::Holds(_) => Cell::Holds(1),
            other => other,
        }
    }
    /// What it says, in words.
    pub fn words(self) -> String {
        let words = match self {
            Cell::Empty => "nothing",
            Cell::Write => "write",
            Cell::Rewrite => "same bytes written again",
            Cell::Zero => "zeroed",
            Cell::Discard => "discard",
            Cell::Rollback => "rolled back",
            Cell::Resize => "size changed",
            Cell::Unsure => "failed or not known",
            Cell::Copied => "copied",
            Cell::Must => "must be reported",
            Cell::May => "may be reported",
            Cell::Reported => "reported",
            Cell::Agreed => "as it has to be",
            Cell::Missed => "missed",
            Cell::Extra => "too much",
            Cell::Wrong => "wrong",
            Cell::HoldsZero => "zeros",
            Cell::Holds(write) => return format!("data of write {write}"),
            Cell::HoldsOld => "data from before the run",
            Cell::HoldsMisplaced => "data that belongs elsewhere",
            Cell::HoldsOther => "something else",
            Cell::HoldsSeveral => "one of several",
            Cell::Outside => "past the end",
        };
        words.to_owned()
    }
}
