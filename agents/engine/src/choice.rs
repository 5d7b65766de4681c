//! Which of a few labels comes next: their probabilities from the logits after a prompt, without generating any.
//!
//! Labels are sequences of tokens, so they form a tree, and where they part the model's probabilities of the tokens that
//! some label goes on with are taken relative to one another: what sampling under the constraint "one of the labels" would
//! draw from. The root costs the prompt alone; labels that begin with the same tokens cost one more small batch for each
//! place where they part, likeliest first. Places that hold too little of the probability to matter are not computed:
//! the labels behind them share it evenly.

use crate::backend::Token;

/// Places below the root that are computed at most; each costs about what a generated token does.
const MAX_PLACES: u32 = 16;
/// What is behind a place with less of the probability is not told apart.
const MATTERS: f64 = 0.01;

/// A choice that is being made.
#[derive(Debug)]
pub(crate) struct Choosing {
    labels: Vec<Vec<Token>>,
    /// Natural logarithms, one for each label that is settled.
    scores: Vec<f64>,
    open: Vec<Place>,
    /// The place whose logits are awaited.
    now: Place,
    /// Places that may still be computed.
    left: u32,
}

/// Where labels part: all members begin with the same `depth` tokens, and not all with the same one after these.
#[derive(Debug, Clone)]
struct Place {
    depth: usize,
    members: Vec<usize>,
    score: f64,
}

/// What a choice needs next.
#[derive(Debug, PartialEq)]
pub(crate) enum Needs {
    /// The logits after these tokens, which follow the prompt.
    After(Vec<Token>),
    /// Nothing: these are the log-probabilities, in the order of the labels; their exponentials add up to 1.
    Nothing(Vec<f64>),
}

impl Choosing {
    /// Labels as tokens, each with the token that ends it, so that none is the beginning of another; all different.
    /// Gives the choice and the tokens that all labels begin with, which belong behind the prompt. `None` without at least
    /// two labels.
    /// `rewinds`: whether cells can be freed again, without which only the root can be computed.
    pub(crate) fn new(mut labels: Vec<Vec<Token>>, rewinds: bool) -> Option<(Self, Vec<Token>)> {
        if labels.len() < 2 {
            return None;
        }
        let members = (0..labels.len()).collect();
        let mut root = Place { depth: 0, members, score: 0.0 }.deepened(&labels);
        let common = labels[0][..root.depth].to_vec();
        labels.iter_mut().for_each(|label| drop(label.drain(..root.depth)));
        root.depth = 0;
        let (scores, left) = (vec![f64::NEG_INFINITY; labels.len()], if rewinds { MAX_PLACES } else { 0 });
        Some((Self { labels, scores, open: Vec::new(), now: root, left }, common))
    }

    /// The tokens whose logits are wanted.
    pub(crate) fn wanted(&self) -> Vec<Token> {
        let mut wanted: Vec<Token> = self.now.members.iter().map(|at| self.labels[*at][self.now.depth]).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// Takes the logits of [`Self::wanted`] in.
    pub(crate) fn take(&mut self, logits: &[f32]) -> Needs {
        let here = self.now.clone();
        for (token, share) in self.wanted().into_iter().zip(log_softmax(logits)) {
            let members = here.members.iter().copied().filter(|at| self.labels[*at][here.depth] == token);
            let place = Place { depth: here.depth + 1, members: members.collect(), score: here.score + share };
            match place.members[..] {
                [only] => self.scores[only] = place.score,
                _ => self.open.push(place.deepened(&self.labels)),
            }
        }
        self.next()
    }

    fn next(&mut self) -> Needs {
        let most = (0..self.open.len()).max_by(|a, b| self.open[*a].score.total_cmp(&self.open[*b].score));
        let worth = |at: &usize| self.left > 0 && self.open[*at].score >= MATTERS.ln();
        if let Some(at) = most.filter(worth) {
            self.left -= 1;
            self.now = self.open.swap_remove(at);
            return Needs::After(self.labels[self.now.members[0]][..self.now.depth].to_vec());
        }
        for place in self.open.drain(..) {
            let each = place.score - (place.members.len() as f64).ln();
            place.members.into_iter().for_each(|at| self.scores[at] = each);
        }
        Needs::Nothing(std::mem::take(&mut self.scores))
    }
}

impl Place {
    /// At the depth where its members really part.
    fn deepened(mut self, labels: &[Vec<Token>]) -> Self {
        let first = &labels[self.members[0]];
        let same = |depth: usize| self.members.iter().all(|at| labels[*at].get(depth) == Some(&first[depth]));
        while self.depth < first.len() && same(self.depth) {
            self.depth += 1;
        }
        self
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // A model that rules all of them out has no opinion.
    if !most.is_finite() {
        return vec![-(logits.len() as f64).ln(); logits.len()];
    }
    let shifted = logits.iter().map(|logit| f64::from(*logit) - f64::from(most));
    let total = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|x| x - total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A token is a character; a dot ends a label.
    fn tokens(label: &str) -> Vec<Token> {
        label.chars().chain(['.']).map(|c| Token(c as i32)).collect()
    }

    fn choose(labels: &[String], logit: impl Fn(&[Token], Token) -> f32) -> (Vec<f64>, u32) {
        let all = labels.iter().map(|label| tokens(label)).collect();
        let (mut choosing, common) = Choosing::new(all, true).unwrap();
        let (mut passes, mut path) = (0, common.clone());
        loop {
            passes += 1;
            let logits: Vec<f32> = choosing.wanted().into_iter().map(|token| logit(&path, token)).collect();
            match choosing.take(&logits) {
                Needs::After(more) => path = [&common[..], &more].concat(),
                Needs::Nothing(scores) => return (scores, passes),
            }
        }
    }

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn labels_that_begin_differently_take_one_pass() {
        let (scores, passes) =
            choose(&labels(&["gguf", "lora", "rag"]), |_, token| [0.0, 1.0][usize::from(token.0 == 'l' as i32)]);
        assert_eq!(passes, 1);
        assert!((scores[1].exp() - 1f64.exp() / (1f64.exp() + 2.0)).abs() < 1e-9, "{scores:?}");
    }

    #[test]
    fn labels_with_one_beginning_are_told_apart_where_they_part() {
        let names = labels(&["role-a", "role-b", "role-bc"]);
        let logit = |path: &[Token], token: Token| match (path.len(), char::from_u32(token.0 as u32).unwrap()) {
            (5, 'b') => 2.0,
            (6, 'c') => 1.0,
            _ => 0.0,
        };
        let (scores, passes) = choose(&names, logit);
        assert_eq!(passes, 2);
        let (b, c) = (2f64.exp() / (2f64.exp() + 1.0), 1f64.exp() / (1f64.exp() + 1.0));
        assert!((scores[1].exp() - b * (1.0 - c)).abs() < 1e-9 && (scores[2].exp() - b * c).abs() < 1e-9, "{scores:?}");
    }

    #[test]
    fn what_does_not_matter_is_not_computed() {
        let names = labels(&["a", "bx", "by"]);
        let (scores, passes) = choose(&names, |_, token| [0.0, 9.0][usize::from(token.0 == 'a' as i32)]);
        assert_eq!((passes, scores[1]), (1, scores[2]));
    }

    proptest! {
        #[test]
        fn probabilities_add_up_and_passes_are_few(names in prop::collection::btree_set("[ab]{1,6}", 2..40), seed: u32) {
            let names: Vec<String> = names.into_iter().collect();
            let (scores, passes) = choose(&names, |path, token| {
                let mix = path.iter().chain([&token]).fold(seed, |hash, t| hash.wrapping_mul(31) ^ t.0 as u32);
                (mix % 17) as f32 / 4.0
            });
            prop_assert!((scores.iter().map(|s| s.exp()).sum::<f64>() - 1.0).abs() < 1e-6, "{scores:?}");
            prop_assert!(passes <= 1 + MAX_PLACES);
        }
    }
}
