//! `POST /v1/completions`: one or several prompts, each of them a task.

use artel_proto::v1;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse as _;
use futures::future::try_join_all;
use futures::stream::{self, Stream, StreamExt as _};
use serde_json::{Map, Value, json};

use crate::answer::{AnswerFinish, AnswerHead, AnswerPart, FinishedAnswer};
use crate::answer_json::{AnswerNotes, fingerprint, finish_word, json_response, usage};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::field_names::FieldNames;
use crate::fields::{Fields, text_of};
use crate::front::Front;
use crate::run_options::RunOptions;
use crate::sampling::RequestedSampling;
use crate::services::{ServedKind, ServedModel, Services};
use crate::sse::{self, StreamWriter, comment, data};
use crate::target::{model_name, target};

/// The prompts of a request: each is a task, and a caller may have only so many open.
const MAX_PROMPT_TEXTS: usize = 16;
/// The name of the text of a task in this request.
const PROMPT_NAMES: FieldNames = FieldNames::new(&[("input", "prompt")]);

/// Answers prompts.
pub(crate) async fn create<S: Services>(State(front): State<Front<S>>, request: Request) -> Response<Body> {
    complete(front, request).await.unwrap_or_else(ApiError::into_response)
}

async fn complete<S: Services>(front: Front<S>, request: Request) -> Result<Response<Body>, ApiError> {
    let call = Call::read(request).await?;
    let PromptRequest { model, kind, prompts, submit, options, stream, not_taken } =
        PromptRequest::parse(&call, |id| front.served(id))?;
    let has_several = prompts.len() > 1;
    let choices = submit.sampling.as_ref().and_then(|sampling| sampling.n).map_or(1, |n| n as usize);
    let answers = prompts.into_iter().enumerate().map(|(i, input)| {
        let submit = v1::SubmitRequest { input, ..submit.clone() };
        let options = if has_several { options.of_part(i) } else { options.clone() };
        front.run(&call, &kind, options, submit, PROMPT_NAMES, stream.is_some())
    });
    let mut answers = try_join_all(answers).await?;
    let tasks: Vec<&str> = answers.iter().map(|answer| answer.head().task.as_str()).collect();
    let notes = AnswerNotes { task: tasks.join(", "), not_taken };
    let head = answers.first().map(|first| first.head().clone()).unwrap_or_default();
    let page = CompletionPage { head, model, notes: notes.clone() };
    let response = match stream {
        None => {
            let whole = try_join_all(answers.into_iter().map(|answer| answer.whole())).await?;
            page.whole(&whole)
        }
        Some(include_usage) => {
            try_join_all(answers.iter_mut().map(|answer| answer.hold_head())).await?;
            let writer = TextWriter::new(page, include_usage, answers.len(), choices);
            let parts = answers.into_iter().enumerate();
            let parts = parts.map(|(i, answer)| answer.into_parts().map(move |part| (i, part)).boxed());
            sse::response(until_failure(stream::select_all(parts)), writer)
        }
    };
    Ok(notes.with_headers(response))
}

/// The parts up to the first failure. With it, the answers are dropped, as if their client had gone.
fn until_failure<S>(parts: S) -> impl Stream<Item = (usize, AnswerPart)> + Send + 'static
where
    S: Stream<Item = (usize, AnswerPart)> + Send + Unpin + 'static,
{
    stream::unfold(Some(parts), |parts| async move {
        let mut parts = parts?;
        let part = parts.next().await?;
        let has_failed = matches!(part, (_, AnswerPart::Failed(_)));
        Some((part, (!has_failed).then_some(parts)))
    })
}

/// A request, parsed.
struct PromptRequest {
    model: String,
    kind: ServedKind,
    prompts: Vec<String>,
    /// All but the prompt.
    submit: v1::SubmitRequest,
    options: RunOptions,
    /// Whether the stream has token counts; `None` if the answer comes as a whole.
    stream: Option<bool>,
    not_taken: Vec<&'static str>,
}

impl PromptRequest {
    fn parse(call: &Call, served: impl FnOnce(&str) -> Result<ServedModel, ApiError>) -> Result<Self, ApiError> {
        let fields = &call.fields();
        let model = model_name(fields)?;
        let ServedModel { name, kind, .. } = served(&model)?;
        let target = target(name, &kind)?;
        let sampling = RequestedSampling::parse(fields, &["max_tokens"])?;
        refuse_unsupported(fields, sampling.options.n.unwrap_or(1))?;
        let (sampling, not_taken) = sampling.with_logprobs("logprobs", fields.count("logprobs")?).for_model(&kind);
        let submit = v1::SubmitRequest { target, sampling, ..v1::SubmitRequest::default() };
        let stream_options = fields.object("stream_options")?;
        let include_usage = stream_options.map(|options| options.flag("include_usage")).transpose()?.flatten();
        let stream = fields.flag("stream")?.unwrap_or(false).then(|| include_usage.unwrap_or(false));
        let options = RunOptions::parse(&call.headers, fields)?;
        Ok(Self { model, kind, prompts: prompts(fields)?, submit, options, stream, not_taken })
    }
}

fn prompts(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    match fields.value("prompt") {
        None => Err(fields.invalid("prompt", "is missing: it must be a text or a list of texts")),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(texts)) if texts.iter().any(|text| text.is_number() || text.is_array()) => {
            Err(fields.unsupported("prompt", "is a list of token ids, which other models do not have: send texts"))
        }
        Some(_) => {
            let texts = fields.list("prompt")?.unwrap_or_default();
            if !(1..=MAX_PROMPT_TEXTS).contains(&texts.len()) {
                let what = format!("has {} texts, and must have 1 to {MAX_PROMPT_TEXTS}", texts.len());
                return Err(fields.invalid("prompt", what));
            }
            let texts = texts.iter().enumerate();
            texts.map(|(i, text)| Ok(text_of(text, || format!("prompt[{i}]"))?.to_owned())).collect()
        }
    }
}

fn refuse_unsupported(fields: &Fields<'_>, answers: u32) -> Result<(), ApiError> {
    if fields.flag("echo")? == Some(true) {
        return Err(fields.unsupported("echo", "is not taken: an answer does not repeat its prompt"));
    }
    if fields.text("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(
            fields.unsupported("suffix", "is not taken: a role answers a prompt, and does not fill a gap in a text")
        );
    }
    if fields.count("best_of")?.is_some_and(|count| count > answers) {
        return Err(
            fields.unsupported("best_of", "is above `n`: all answers are returned, so choose among `n` answers")
        );
    }
    Ok(())
}

/// What all parts of a response have in common.
struct CompletionPage {
    /// That of the first task.
    head: AnswerHead,
    model: String,
    notes: AnswerNotes,
}

impl CompletionPage {
    fn page(&self, choices: &[Value]) -> Value {
        json!({
            "id": format!("cmpl-{}", self.head.task),
            "object": "text_completion",
            "created": self.head.created,
            "model": self.model,
            "system_fingerprint": fingerprint(&self.head),
            "choices": choices,
        })
    }

    fn whole(&self, answers: &[(AnswerHead, FinishedAnswer)]) -> Response<Body> {
        let mut used = v1::Usage::default();
        let mut choices = Vec::new();
        for (_, answer) in answers {
            used += &answer.usage;
            for (output, finish) in answer.outputs() {
                let tokens = output.logprobs.as_ref().map(|all| legacy_logprobs(&all.tokens, 0));
                choices.push(choice(choices.len(), &output.text, tokens.as_ref(), Some(finish)));
            }
        }
        let mut page = self.page(&choices);
        page["usage"] = usage(&used);
        page["artel"] = self.notes.to_json();
        json_response(&page)
    }
}

fn choice(index: usize, text: &str, logprobs: Option<&Value>, finish: Option<AnswerFinish>) -> Value {
    json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish.map(finish_word)})
}

/// `logprobs` of completions; `offset` counts the characters before them.
fn legacy_logprobs(tokens: &[v1::TokenLogprob], offset: usize) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let texts: Vec<String> = tokens.iter().map(|token| text(&token.bytes)).collect();
    let offsets = texts.iter().scan(offset, |at, text| Some(std::mem::replace(at, *at + text.chars().count())));
    let top = |token: &v1::TokenLogprob| {
        token.top.iter().map(|top| (text(&top.bytes), top.logprob.into())).collect::<Map<String, Value>>()
    };
    json!({
        "text_offset": offsets.collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "tokens": texts,
    })
}

/// Writes the parts of the answers to several prompts.
struct TextWriter {
    page: CompletionPage,
    include_usage: bool,
    /// The characters of the first answer to each prompt so far.
    written: Vec<usize>,
    /// The answers to a prompt.
    choices: usize,
    used: v1::Usage,
    /// The prompts whose answers have not ended.
    open: usize,
}

impl TextWriter {
    fn new(page: CompletionPage, include_usage: bool, prompts: usize, choices: usize) -> Self {
        let (written, used) = (vec![0; prompts], v1::Usage::default());
        Self { page, include_usage, written, choices, used, open: prompts }
    }

    fn chunk(&self, choices: &[Value]) -> Value {
        let mut chunk = self.page.page(choices);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The ends of all answers to a prompt.
    fn finished(&mut self, prompt: usize, answer: &FinishedAnswer) -> String {
        self.used += &answer.usage;
        self.open -= 1;
        let count = 1 + answer.output.alternatives.len();
        let mut lines = String::new();
        for (i, (output, finish)) in answer.outputs().enumerate() {
            let (text, tokens) = match i {
                0 => ("", None),
                _ => (&*output.text, output.logprobs.as_ref().map(|all| legacy_logprobs(&all.tokens, 0))),
            };
            let index = prompt * self.choices + i;
            let mut chunk = self.chunk(&[choice(index, text, tokens.as_ref(), Some(finish))]);
            if self.open == 0 && i + 1 == count && !self.include_usage {
                chunk["artel"] = self.page.notes.to_json();
            }
            lines += &data(&chunk);
        }
        if self.open == 0 && self.include_usage {
            let mut chunk = self.chunk(&[]);
            chunk["usage"] = usage(&self.used);
            chunk["artel"] = self.page.notes.to_json();
            lines += &data(&chunk);
        }
        lines
    }
}

impl StreamWriter<(usize, AnswerPart)> for TextWriter {
    fn write(&mut self, (prompt, part): (usize, AnswerPart)) -> String {
        match part {
            AnswerPart::Step(line) => comment(&line),
            AnswerPart::Text { text, logprobs } => {
                let offset = self.written.get(prompt).copied().unwrap_or_default();
                let tokens = (!logprobs.is_empty()).then(|| legacy_logprobs(&logprobs, offset));
                if let Some(written) = self.written.get_mut(prompt) {
                    *written += text.chars().count();
                }
                data(&self.chunk(&[choice(prompt * self.choices, &text, tokens.as_ref(), None)]))
            }
            AnswerPart::Finished(answer) => self.finished(prompt, &answer),
            AnswerPart::Failed(error) => data(&error.to_json()),
            // This interface has none of them.
            AnswerPart::Reasoning(_)
            | AnswerPart::StepThought(_)
            | AnswerPart::CallBegin { .. }
            | AnswerPart::CallArguments { .. } => String::new(),
        }
    }

    fn end(&mut self) -> String {
        "data: [DONE]\n\n".to_owned()
    }
}
