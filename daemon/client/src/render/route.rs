//! Decisions of the router.

use artel_proto::v1::Decision;
use artel_terminal::{DIM, StyledText, TextTable, cell};

use crate::render::step::{candidate, decision as decision_line};

/// A decision and the scores of every candidate.
pub(crate) fn decision(decision: &Decision, out: &mut StyledText) {
    decision_line(&Decision { scores: Vec::new(), ..decision.clone() }, out);
    out.newline();
    let mut table = TextTable::new(&["CANDIDATE", "SCORE", "SIGNALS"]);
    for score in &decision.scores {
        let mut signals: Vec<String> = score.signals.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
        signals.sort();
        table.row(vec![cell(candidate(score)), cell(format!("{:.3}", score.score)), (DIM, signals.join(", "))]);
    }
    if !decision.scores.is_empty() {
        table.render(out);
    }
    if let Some(no_match) = &decision.no_match {
        out.push_styled(DIM, format_args!("no match {:.3}, margin {:.3}", no_match.score, decision.margin)).newline();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn every_candidate_is_shown() {
        let mut out = StyledText::new(false);
        decision(&sample::decision(false), &mut out);
        decision(&sample::decision(true), &mut out);
        insta::assert_snapshot!(out.take());
    }
}
