//! The puzzles: sequences of tokens at some rows of which one answer is right.

use serde::{Deserialize, Serialize};

use crate::train::examples::Pair;
use crate::train::loss::cross_entropy::NOTHING;
use crate::train::random::Dice;
use crate::{Error, Result};

/// Tokens that selective copying asks for.
const COPIED: usize = 16;
/// The longest sequences.
const LONGEST: usize = 1 << 24;
/// Its blank, and what asks for the next token.
const BLANK: u32 = 0;
const ASK: u32 = 1;
/// The key of induction heads.
const KEY: u32 = 0;

/// A test of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Puzzle {
    /// Sixteen tokens lie scattered among blanks; after the last row they are asked for, one a row, in their order.
    SelectiveCopying,
    /// One token of many is a key; when it comes again, at the last row, what followed it the first time is wanted.
    InductionHeads,
}

impl Puzzle {
    /// Rows of an example whose sequence is `length` long.
    pub fn rows(self, length: usize) -> usize {
        match self {
            Self::SelectiveCopying => length + COPIED,
            Self::InductionHeads => length,
        }
    }

    /// Answers of an example.
    pub fn answers(self) -> usize {
        match self {
            Self::SelectiveCopying => COPIED,
            Self::InductionHeads => 1,
        }
    }

    /// Refuses what leaves nothing to ask, or what no memory holds.
    pub fn check(self, length: usize, vocabulary: usize) -> Result<()> {
        let (least, tokens) = match self {
            Self::SelectiveCopying => (COPIED, 4),
            Self::InductionHeads => (3, 3),
        };
        if (least..=LONGEST).contains(&length) && vocabulary >= tokens {
            return Ok(());
        }
        let expected =
            format!("a length of {least} to {LONGEST}, and a vocabulary of {tokens} tokens at least");
        Err(Error::input("recipe [recall]", expected, format!("{length} and {vocabulary}")))
    }

    /// One example; sizes have been checked.
    pub fn make(self, length: usize, vocabulary: usize, dice: &mut Dice) -> Pair<u32> {
        match self {
            Self::SelectiveCopying => copying(length, vocabulary, dice),
            Self::InductionHeads => induction(length, vocabulary, dice),
        }
    }
}

fn copying(length: usize, vocabulary: usize, dice: &mut Dice) -> Pair<u32> {
    let (mut heard, mut wanted) = (vec![BLANK; length + COPIED], vec![NOTHING; length + COPIED]);
    let mut left = COPIED;
    while left > 0 {
        let place = &mut heard[dice.below(length)];
        if *place == BLANK {
            *place = 2 + dice.below(vocabulary - 2) as u32;
            left -= 1;
        }
    }
    let copied: Vec<u32> = heard.iter().copied().filter(|token| *token != BLANK).collect();
    heard[length..].fill(ASK);
    wanted[length..].copy_from_slice(&copied);
    Pair { heard, wanted }
}

fn induction(length: usize, vocabulary: usize, dice: &mut Dice) -> Pair<u32> {
    let mut heard: Vec<u32> = (0..length).map(|_| 1 + dice.below(vocabulary - 1) as u32).collect();
    let (key, last) = (dice.below(length - 2), length - 1);
    let mut wanted = vec![NOTHING; length];
    (heard[key], heard[last], wanted[last]) = (KEY, KEY, heard[key + 1]);
    Pair { heard, wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_follow_from_what_was_heard() {
        for seed in 0..50 {
            let mut dice = Dice::new(1, seed);
            let Pair { heard, wanted } = Puzzle::SelectiveCopying.make(40, 16, &mut dice);
            let (body, asked) = heard.split_at(40);
            let data: Vec<u32> = body.iter().copied().filter(|t| *t != BLANK).collect();
            assert!(data.len() == 16 && data.iter().all(|t| (2..16).contains(t)) && asked == [ASK; 16]);
            assert!(wanted[..40].iter().all(|t| *t == NOTHING) && wanted[40..] == data);

            let Pair { heard, wanted } = Puzzle::InductionHeads.make(30, 16, &mut dice);
            let keys: Vec<usize> = (0..30).filter(|i| heard[*i] == KEY).collect();
            assert!(keys.len() == 2 && keys[1] == 29 && keys[0] < 28);
            assert!(wanted[..29].iter().all(|t| *t == NOTHING) && wanted[29] == heard[keys[0] + 1]);
        }
        assert!(
            Puzzle::InductionHeads.check(2, 16).is_err() && Puzzle::SelectiveCopying.check(16, 3).is_err()
        );
    }
}
