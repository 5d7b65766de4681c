//! What a router would decide.

use artel_proto::v1::Decision;

use super::page::{DIM, Page};
use super::step::{candidate, decision as line};
use super::table::{Table, cell};

/// A decision and every candidate's scores.
pub(crate) fn decision(decision: &Decision, page: &mut Page) {
    line(&Decision { scores: Vec::new(), ..decision.clone() }, page);
    page.end();
    let mut table = Table::new(&["CANDIDATE", "SCORE", "SIGNALS"]);
    for score in &decision.scores {
        let mut signals: Vec<String> = score.signals.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
        signals.sort();
        table.row(vec![cell(candidate(score)), cell(format!("{:.3}", score.score)), (DIM, signals.join(", "))]);
    }
    if !decision.scores.is_empty() {
        table.render(page);
    }
    if let Some(none) = &decision.none {
        page.paint(DIM, format_args!("none of them {:.3}, margin {:.3}", none.score, decision.margin)).end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::render::sample;

    #[test]
    fn every_candidate_is_shown() {
        let mut page = Page::new(false);
        decision(&sample::decision(false), &mut page);
        decision(&sample::decision(true), &mut page);
        insta::assert_snapshot!(page.take());
    }
}
