//! Values of labels: those of a fixed list, and those that are bounded in number.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

/// The value of a label for everything beyond its bound.
pub const OTHER: &str = "other";

/// The names that a label may have as values: the first so many.
#[derive(Debug)]
pub(crate) struct LabelBound {
    max_values: usize,
    known: Mutex<HashSet<Arc<str>>>,
}

impl LabelBound {
    pub(crate) fn new(max_values: usize) -> Self {
        Self { max_values, known: Mutex::default() }
    }

    /// The value for this name: itself, or [`OTHER`] if there are as many as may be. It locks: not for what runs for each token.
    pub(crate) fn value(&self, name: &str) -> Arc<str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(name) {
            return value.clone();
        }
        if known.len() >= self.max_values {
            return OTHER.into();
        }
        let value: Arc<str> = name.into();
        known.insert(value.clone());
        value
    }
}

/// The values of a label that has a fixed list of them.
pub(crate) trait LabelValues: Copy {
    /// All of them, in the order of [`LabelValues::index`].
    const TEXTS: &'static [&'static str];
    /// The place of this one.
    fn index(self) -> usize;
}

/// Declares an enum whose variants are the values of a label.
macro_rules! label_values {
    ($(#[$doc:meta])* $vis:vis enum $Name:ident { $($(#[$variant_doc:meta])* $Variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $Name { $($(#[$variant_doc])* $Variant,)+ }

        impl $crate::label::LabelValues for $Name {
            const TEXTS: &'static [&'static str] = &[$($text,)+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use label_values;

/// A metric for each value of a label with a fixed list of them, resolved once.
#[derive(Debug)]
pub(crate) struct ByValue<E, M> {
    metrics: Box<[M]>,
    values: PhantomData<fn(E)>,
}

impl<E: LabelValues, M> ByValue<E, M> {
    /// What `metric` gives for each value. Series exist from the start, so that their first increase is seen.
    pub(crate) fn new(metric: impl Fn(&'static str) -> M) -> Self {
        Self { metrics: E::TEXTS.iter().map(|text| metric(text)).collect(), values: PhantomData }
    }

    pub(crate) fn of(&self, value: E) -> &M {
        &self.metrics[value.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_are_other_and_known_ones_stay() {
        let bound = LabelBound::new(2);
        let values: Vec<_> = ["a", "b", "c", "a", "d"].map(|name| bound.value(name).to_string()).into();
        assert_eq!(values, ["a", "b", OTHER, "a", OTHER]);
    }
}
