//! Knowledge: its state, and what was found in it.

use std::time::Duration;

use artel_proto::v1::{
    AddTextResponse, Citation, GetSourceResponse, KnowledgeStatus, Passage, SearchTimings, SourceStatus,
};
use artel_terminal::{BAD, BOLD, DIM, StyledText, TextTable, WARN, cell, one_line};

use crate::knowledge::{HybridGain, MeanInterval, SearchQuality};

/// What was found, the best first.
pub(crate) fn passages(passages: &[Passage], stale: bool, out: &mut StyledText) {
    if stale {
        out.push_styled(WARN, "some files are not indexed yet: `artel knowledge status` shows how far it is").newline();
    }
    if passages.is_empty() {
        out.push("nothing was found").newline();
    }
    for (at, passage) in passages.iter().enumerate() {
        if at > 0 {
            out.newline();
        }
        out.push_styled(BOLD, format_args!("{}  {}", passage.rank, place(passage)));
        out.push_styled(DIM, format_args!("  score {:.3}", passage.score)).newline();
        text(passage, out);
    }
}

/// How long the parts of a search took.
pub(crate) fn timings(timings: &SearchTimings, out: &mut StyledText) {
    let millis = |duration: &Option<prost_types::Duration>| {
        let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
        duration.unwrap_or_default().as_secs_f64() * 1000.0
    };
    let SearchTimings { embedding, keyword, vector, fusion, rerank } = timings;
    let parts =
        [("embedding", embedding), ("words", keyword), ("vectors", vector), ("fusion", fusion), ("reranking", rerank)];
    let parts: Vec<String> = parts.iter().map(|(name, time)| format!("{name} {:.1} ms", millis(time))).collect();
    out.newline().push_styled(DIM, parts.join(", ")).newline();
}

/// How far each index is.
pub(crate) fn status(known: &[KnowledgeStatus], out: &mut StyledText) {
    if known.is_empty() {
        out.push("the catalog has no knowledge: a document `knowledge: NAME` defines one").newline();
        return;
    }
    let mut table = TextTable::new(&["NAME", "SOURCES", "PASSAGES", "FAILED", "EMBEDDING", "STATE"]);
    for status in known {
        let model = if status.embedding_model.is_empty() { "none" } else { &status.embedding_model };
        let failed = (if status.failed > 0 { WARN } else { DIM }, status.failed.to_string());
        table.row(vec![
            (BOLD, status.name.clone()),
            cell(status.sources.to_string()),
            cell(status.passages.to_string()),
            failed,
            cell(model),
            state(status),
        ]);
    }
    table.render(out);
    for KnowledgeStatus { name, warning, .. } in known.iter().filter(|status| !status.warning.is_empty()) {
        out.push_styled(WARN, name).push(": ").push(warning).newline();
    }
}

fn state(status: &KnowledgeStatus) -> (anstyle::Style, String) {
    if !status.problem.is_empty() {
        return (BAD, status.problem.clone());
    }
    if status.pending == 0 && !status.rebuilding {
        let (style, text) = if status.stale { (WARN, "comparing the files") } else { (DIM, "up to date") };
        return (style, text.to_owned());
    }
    let left = status.time_left.and_then(|left| Duration::try_from(left).ok());
    let left = left.map(|left| format!(", {} left", artel_terminal::span(left))).unwrap_or_default();
    let pace = match status.passages_per_second {
        0.0 => String::new(),
        pace => format!(", {pace:.0} passages/s"),
    };
    let doing = if status.rebuilding { "building a new index" } else { "indexing" };
    (WARN, format!("{doing}: {} files to go{pace}{left}", status.pending))
}

/// The files that could not be read.
pub(crate) fn failures(failed: &[SourceStatus], out: &mut StyledText) {
    for SourceStatus { source, reason, .. } in failed {
        out.push_styled(WARN, source).push(": ").push(reason).newline();
    }
}

/// Files and texts.
pub(crate) fn sources(sources: &[SourceStatus], out: &mut StyledText) {
    let mut table = TextTable::new(&["SOURCE", "PASSAGES", "BYTES", "OWNER", "STATE"]);
    for status in sources {
        let owner = if status.owner.is_empty() { "file" } else { &status.owner };
        let state = if status.reason.is_empty() { (DIM, "indexed".to_owned()) } else { (WARN, status.reason.clone()) };
        table.row(vec![
            (BOLD, status.source.clone()),
            cell(status.passages.to_string()),
            cell(status.bytes.to_string()),
            cell(owner),
            state,
        ]);
    }
    table.render(out);
}

/// A source in its passages.
pub(crate) fn source(answer: &GetSourceResponse, out: &mut StyledText) {
    let status = answer.status.clone().unwrap_or_default();
    if !status.reason.is_empty() {
        out.push_styled(WARN, &status.source).push(": ").push(&status.reason).newline();
    }
    for passage in &answer.passages {
        out.push_styled(BOLD, place(passage)).newline();
        text(passage, out);
        out.newline();
    }
}

/// A text was taken.
pub(crate) fn added(source: &str, answer: &AddTextResponse, out: &mut StyledText) {
    let verb = if answer.replaced { "replaced" } else { "added" };
    out.push(format_args!("{verb} {source}: {} passages", answer.passages)).newline();
}

/// How well each way to search found the answers.
pub(crate) fn quality(found: &[SearchQuality], gains: &[HybridGain], out: &mut StyledText) {
    let mut table = TextTable::new(&["QUESTIONS", "OF", "MODE", "NDCG@10", "95 %", "RECALL@5", "95 %"]);
    let all = |subset: &str| if subset.is_empty() { "all".to_owned() } else { subset.to_owned() };
    for SearchQuality { subset, questions, mode, ndcg, recall } in found {
        table.row(vec![
            (BOLD, all(subset)),
            cell(questions.to_string()),
            cell(*mode),
            cell(format!("{:.3}", ndcg.mean)),
            (DIM, interval(ndcg)),
            cell(format!("{:.3}", recall.mean)),
            (DIM, interval(recall)),
        ]);
    }
    table.render(out);
    out.newline();
    for HybridGain { subset, other, ndcg } in gains {
        let (subset, gain, interval) = (all(subset), ndcg.mean, interval(ndcg));
        out.push(format_args!("{subset}: hybrid against {other}: {gain:+.3} nDCG@10, 95 % {interval}")).newline();
    }
}

fn interval(mean: &MeanInterval) -> String {
    format!("{:.3} to {:.3}", mean.low, mean.high)
}

/// What an answer cites, a line for each passage.
pub(crate) fn citations(citations: &[Citation], out: &mut StyledText) {
    for citation in citations {
        let Citation { number, source, page, first_line, last_line, context, .. } = citation;
        out.push_styled(BOLD, format_args!("  [{number}] "));
        out.push(one_line(&place_of(source, *page, (*first_line, *last_line), context))).newline();
    }
}

fn place(passage: &Passage) -> String {
    let Passage { source, page, first_line, last_line, context, .. } = passage;
    place_of(source, *page, (*first_line, *last_line), context)
}

/// Where a passage is: its source, its page, its lines, its headings.
fn place_of(source: &str, page: u32, lines: (u32, u32), context: &[String]) -> String {
    let page = if page > 0 { format!(", page {page}") } else { String::new() };
    let lines = match lines {
        (0, _) => String::new(),
        (first, last) if first == last => format!(", line {first}"),
        (first, last) => format!(", lines {first} to {last}"),
    };
    let headings = if context.is_empty() { String::new() } else { format!("  {}", context.join(" > ")) };
    format!("{source}{page}{lines}{headings}")
}

fn text(passage: &Passage, out: &mut StyledText) {
    let header = Some(&passage.header).filter(|header| !header.is_empty());
    for line in header.into_iter().map(String::as_str).chain(passage.text.lines()) {
        out.push("    ").push(line).newline();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage() -> Passage {
        Passage {
            rank: 1,
            score: 0.9,
            source: "handbook.pdf".to_owned(),
            page: 3,
            first_line: 4,
            last_line: 6,
            context: vec!["Refunds".to_owned(), "Time".to_owned()],
            header: "| a |".to_owned(),
            text: "one\ntwo".to_owned(),
            ..Passage::default()
        }
    }

    #[test]
    fn a_passage_is_shown_with_its_place() {
        let mut out = StyledText::new(false);
        passages(&[passage()], false, &mut out);
        let shown = "1  handbook.pdf, page 3, lines 4 to 6  Refunds > Time  score 0.900\n    | a |\n    one\n    two\n";
        assert_eq!(out.take(), shown);
        passages(&[], true, &mut out);
        assert!(out.take().ends_with("nothing was found\n"));
    }

    #[test]
    fn what_is_cited_is_a_line_each() {
        let cited =
            Citation { number: 2, source: "a.md".to_owned(), first_line: 7, last_line: 7, ..Citation::default() };
        let mut out = StyledText::new(false);
        citations(&[cited], &mut out);
        assert_eq!(out.take(), "  [2] a.md, line 7\n");
    }

    #[test]
    fn the_state_says_what_is_in_the_way_or_how_long_it_takes() {
        let status = |problem: &str, pending| KnowledgeStatus {
            problem: problem.to_owned(),
            pending,
            passages_per_second: if pending > 0 { 12.3 } else { 0.0 },
            ..KnowledgeStatus::default()
        };
        assert_eq!(state(&status("", 0)).1, "up to date");
        assert_eq!(state(&KnowledgeStatus { stale: true, ..status("", 0) }).1, "comparing the files");
        assert_eq!(state(&status("", 7)).1, "indexing: 7 files to go, 12 passages/s");
        assert_eq!(state(&status("no model", 7)).1, "no model");
    }
}
