//! The samples of a training, and what is in them.

use artel_proto::v1::{ChatRole, LengthSpread, LintDataResponse, TrainingSample};
use artel_terminal::{BOLD, DIM, GOOD, StyledText, WARN};

/// What was left out that is listed; `--json` lists more.
const MAX_LISTED_ITEMS: usize = 20;

/// A sample, with a line before it unless it is the first.
pub(crate) fn sample(sample: &TrainingSample, is_first: bool, out: &mut StyledText) {
    if !is_first {
        out.newline();
    }
    out.push_styled(BOLD, &sample.origin);
    out.push_styled(DIM, if sample.held_out { "  held out" } else { "  to train on" }).newline();
    for message in &sample.messages {
        let role = match message.role() {
            ChatRole::System => "system",
            ChatRole::Assistant => "assistant",
            _ => "user",
        };
        text(role, &message.text, out);
    }
    text("answer", &sample.answer, out);
}

/// A text behind its author, each line behind a bar.
fn text(author: &str, text: &str, out: &mut StyledText) {
    for (at, line) in text.lines().enumerate() {
        let author = if at == 0 { author } else { "" };
        out.push_styled(DIM, format_args!("{author:>9} │ ")).push(line).newline();
    }
}

/// What is in the samples.
pub(crate) fn report(report: &LintDataResponse, out: &mut StyledText) {
    let LintDataResponse { sources, train, held_out, findings, left_out, left_out_count, languages, .. } = report;
    let counts =
        format!("{} samples: {train} to train on, {held_out} held out; {left_out_count} left out", train + held_out);
    out.push_styled(BOLD, counts).newline();
    let listed = |items: Vec<String>| items.join(", ");
    if !sources.is_empty() {
        let of = listed(sources.iter().map(|source| format!("{} {}", source.name, source.samples)).collect());
        out.push(format_args!("samples of      {of}")).newline();
        let of =
            listed(languages.iter().map(|language| format!("{} {}", language.language, language.samples)).collect());
        out.push(format_args!("languages       {of}")).newline();
        out.push(format_args!("prompts         {}", spread(report.prompt_chars))).newline();
        out.push(format_args!("answers         {}", spread(report.answer_chars))).newline();
    }
    for finding in findings {
        out.push_styled(WARN, "! ").push(&finding.text).newline();
        for place in &finding.places {
            out.push_styled(DIM, format_args!("    {place}")).newline();
        }
    }
    if !left_out.is_empty() {
        out.push("left out").newline();
    }
    for sample in left_out.iter().take(MAX_LISTED_ITEMS) {
        out.push(format_args!("    {}: {}", sample.origin, sample.reason)).newline();
    }
    let more = left_out_count.saturating_sub(MAX_LISTED_ITEMS.min(left_out.len()) as u64);
    if more > 0 {
        out.push_styled(DIM, format_args!("    and {more} more; `--json` lists up to 1000")).newline();
    }
    if findings.is_empty() && *left_out_count == 0 {
        out.push_styled(GOOD, "nothing was found that is wrong").newline();
    }
}

fn spread(lengths: Option<LengthSpread>) -> String {
    let LengthSpread { median, p95, max } = lengths.unwrap_or_default();
    format!("{median} characters in the median, {p95} at p95, {max} at most")
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::{DataFinding, LanguageSamples, LeftOutSample, SampleSource};

    use super::*;

    #[test]
    fn a_report_names_what_is_wrong_and_where() {
        let lengths = Some(LengthSpread { median: 10, p95: 90, max: 100 });
        let mut response = LintDataResponse {
            sources: vec![SampleSource { name: "a.jsonl".to_owned(), samples: 12 }],
            train: 9,
            held_out: 3,
            prompt_chars: lengths,
            answer_chars: lengths,
            languages: vec![LanguageSamples { language: "en".to_owned(), samples: 12 }],
            ..LintDataResponse::default()
        };
        let shown = |response: &LintDataResponse| {
            let mut out = StyledText::new(false);
            report(response, &mut out);
            out.take()
        };
        let counts = "samples of      a.jsonl 12\nlanguages       en 12\n\
                      prompts         10 characters in the median, 90 at p95, 100 at most\n\
                      answers         10 characters in the median, 90 at p95, 100 at most\n";
        let fine =
            format!("12 samples: 9 to train on, 3 held out; 0 left out\n{counts}nothing was found that is wrong\n");
        assert_eq!(shown(&response), fine);
        response.findings.push(DataFinding { text: "a leak".to_owned(), places: vec!["a.jsonl:1".to_owned()] });
        response.left_out_count = 21;
        let reason = "it is no JSON object".to_owned();
        response.left_out = vec![LeftOutSample { origin: "a.jsonl:2".to_owned(), reason }];
        let wrong = format!(
            "12 samples: 9 to train on, 3 held out; 21 left out\n{counts}! a leak\n    a.jsonl:1\nleft out\n    \
             a.jsonl:2: it is no JSON object\n    and 20 more; `--json` lists up to 1000\n"
        );
        assert_eq!(shown(&response), wrong);
    }
}
