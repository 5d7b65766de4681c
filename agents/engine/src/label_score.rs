//! Label scoring: the probabilities of a few labels from the logits after a prompt, without generating any of them.
//!
//! Labels are sequences of tokens, so they form a trie. Where labels diverge, the model's probabilities of the tokens that some
//! label continues with are normalized among themselves: what sampling under the constraint "one of the labels" would draw
//! from. The root costs the prompt alone; labels with a common prefix cost one more small batch for each node where they
//! diverge, likeliest first. Nodes with too little probability to matter are not computed: their labels share it evenly.

use crate::backend::Token;

/// Nodes below the root that are computed at most; each costs about as much as a generated token.
const MAX_NODES: u32 = 16;
/// Labels below a node with less probability than this are not told apart.
const MIN_NODE_PROBABILITY: f64 = 0.01;

/// The state of scoring a set of labels.
#[derive(Debug)]
pub(crate) struct LabelScoring {
    labels: Vec<Vec<Token>>,
    /// Natural logarithms, one per label, final once the label is settled.
    scores: Vec<f64>,
    open: Vec<TrieNode>,
    /// The node whose logits are awaited.
    current: TrieNode,
    /// Nodes that may still be computed.
    remaining_nodes: u32,
}

/// A point where labels diverge: all members begin with the same `depth` tokens, and not all with the same one after these.
#[derive(Debug, Clone)]
struct TrieNode {
    depth: usize,
    members: Vec<usize>,
    score: f64,
}

/// The next step of scoring.
#[derive(Debug, PartialEq)]
pub(crate) enum ScoringStep {
    /// Compute the logits after these tokens, which follow the prompt.
    Decode(Vec<Token>),
    /// Done: these are the log-probabilities, in the order of the labels; their exponentials add up to 1.
    Done(Vec<f64>),
}

impl LabelScoring {
    /// Labels as tokens, each with the token that ends it, so that none is a prefix of another; all different.
    /// Returns the scoring and the tokens that all labels begin with, which belong behind the prompt. `None` with fewer than
    /// two labels.
    /// `can_truncate_kv`: whether cells can be freed again, without which only the root can be computed.
    pub(crate) fn new(mut labels: Vec<Vec<Token>>, can_truncate_kv: bool) -> Option<(Self, Vec<Token>)> {
        if labels.len() < 2 {
            return None;
        }
        let members = (0..labels.len()).collect();
        let mut root = TrieNode { depth: 0, members, score: 0.0 }.at_divergence(&labels);
        let common = labels[0][..root.depth].to_vec();
        labels.iter_mut().for_each(|label| drop(label.drain(..root.depth)));
        root.depth = 0;
        let scores = vec![f64::NEG_INFINITY; labels.len()];
        let remaining_nodes = if can_truncate_kv { MAX_NODES } else { 0 };
        Some((Self { labels, scores, open: Vec::new(), current: root, remaining_nodes }, common))
    }

    /// The tokens whose logits are needed.
    pub(crate) fn candidate_tokens(&self) -> Vec<Token> {
        let TrieNode { depth, members, .. } = &self.current;
        let mut tokens: Vec<Token> = members.iter().map(|at| self.labels[*at][*depth]).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// Takes in the logits of [`Self::candidate_tokens`].
    pub(crate) fn advance(&mut self, logits: &[f32]) -> ScoringStep {
        let parent = self.current.clone();
        for (token, log_probability) in self.candidate_tokens().into_iter().zip(log_softmax(logits)) {
            let members = parent.members.iter().copied().filter(|at| self.labels[*at][parent.depth] == token);
            let node =
                TrieNode { depth: parent.depth + 1, members: members.collect(), score: parent.score + log_probability };
            match node.members[..] {
                [only] => self.scores[only] = node.score,
                _ => self.open.push(node.at_divergence(&self.labels)),
            }
        }
        self.next()
    }

    fn next(&mut self) -> ScoringStep {
        let likeliest = (0..self.open.len()).max_by(|a, b| self.open[*a].score.total_cmp(&self.open[*b].score));
        let matters = |at: &usize| self.remaining_nodes > 0 && self.open[*at].score >= MIN_NODE_PROBABILITY.ln();
        if let Some(at) = likeliest.filter(matters) {
            self.remaining_nodes -= 1;
            self.current = self.open.swap_remove(at);
            return ScoringStep::Decode(self.labels[self.current.members[0]][..self.current.depth].to_vec());
        }
        for node in self.open.drain(..) {
            let each = node.score - (node.members.len() as f64).ln();
            node.members.into_iter().for_each(|at| self.scores[at] = each);
        }
        ScoringStep::Done(std::mem::take(&mut self.scores))
    }
}

impl TrieNode {
    /// The same node at the depth where its members diverge.
    fn at_divergence(mut self, labels: &[Vec<Token>]) -> Self {
        let first = &labels[self.members[0]];
        let is_common = |depth: usize| self.members.iter().all(|at| labels[*at].get(depth) == Some(&first[depth]));
        while self.depth < first.len() && is_common(self.depth) {
            self.depth += 1;
        }
        self
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // A model that rules out all of them has no preference.
    if !max.is_finite() {
        return vec![-(logits.len() as f64).ln(); logits.len()];
    }
    let shifted = logits.iter().map(|logit| f64::from(*logit) - f64::from(max));
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

    fn score(labels: &[String], logit: impl Fn(&[Token], Token) -> f32) -> (Vec<f64>, u32) {
        let all = labels.iter().map(|label| tokens(label)).collect();
        let (mut scoring, common) = LabelScoring::new(all, true).unwrap();
        let (mut passes, mut path) = (0, common.clone());
        loop {
            passes += 1;
            let logits: Vec<f32> = scoring.candidate_tokens().into_iter().map(|token| logit(&path, token)).collect();
            match scoring.advance(&logits) {
                ScoringStep::Decode(more) => path = [&common[..], &more].concat(),
                ScoringStep::Done(scores) => return (scores, passes),
            }
        }
    }

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn labels_that_begin_differently_take_one_pass() {
        let (scores, passes) =
            score(&labels(&["gguf", "lora", "rag"]), |_, token| [0.0, 1.0][usize::from(token.0 == 'l' as i32)]);
        assert_eq!(passes, 1);
        assert!((scores[1].exp() - 1f64.exp() / (1f64.exp() + 2.0)).abs() < 1e-9, "{scores:?}");
    }

    #[test]
    fn labels_with_a_common_prefix_are_told_apart_where_they_diverge() {
        let names = labels(&["role-a", "role-b", "role-bc"]);
        let logit = |path: &[Token], token: Token| match (path.len(), char::from_u32(token.0 as u32).unwrap()) {
            (5, 'b') => 2.0,
            (6, 'c') => 1.0,
            _ => 0.0,
        };
        let (scores, passes) = score(&names, logit);
        assert_eq!(passes, 2);
        let (b, c) = (2f64.exp() / (2f64.exp() + 1.0), 1f64.exp() / (1f64.exp() + 1.0));
        assert!((scores[1].exp() - b * (1.0 - c)).abs() < 1e-9 && (scores[2].exp() - b * c).abs() < 1e-9, "{scores:?}");
    }

    #[test]
    fn nodes_that_do_not_matter_are_not_computed() {
        let names = labels(&["a", "bx", "by"]);
        let (scores, passes) = score(&names, |_, token| [0.0, 9.0][usize::from(token.0 == 'a' as i32)]);
        assert_eq!((passes, scores[1]), (1, scores[2]));
    }

    proptest! {
        #[test]
        fn probabilities_add_up_and_passes_are_few(names in prop::collection::btree_set("[ab]{1,6}", 2..40), seed: u32) {
            let names: Vec<String> = names.into_iter().collect();
            let (scores, passes) = score(&names, |path, token| {
                let mix = path.iter().chain([&token]).fold(seed, |hash, t| hash.wrapping_mul(31) ^ t.0 as u32);
                (mix % 17) as f32 / 4.0
            });
            prop_assert!((scores.iter().map(|s| s.exp()).sum::<f64>() - 1.0).abs() < 1e-6, "{scores:?}");
            prop_assert!(passes <= 1 + MAX_NODES);
        }
    }
}
