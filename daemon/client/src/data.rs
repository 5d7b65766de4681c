//! `artel data`.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use artel_args::{DataCommand, DataExportArgs, DataShowArgs, SamplePartArg};
use artel_proto::v1::{ChatMessage, ChatRole, LintDataRequest, ListSamplesRequest, SamplePart, TrainingSample};
use artel_terminal::CommandOutcome;
use serde_json::{Value, json};
use tonic::Streaming;

use crate::error::Error;
use crate::json::ToJson;
use crate::render::data as render;
use crate::session::ClientSession;

pub(super) async fn run(session: &mut ClientSession, command: DataCommand) -> Result<CommandOutcome, Error> {
    match command {
        DataCommand::Show(args) => show(session, args).await?,
        DataCommand::Lint { name } => {
            // All samples are looked at, which takes as long as it takes.
            let report = session.daemon.training().lint_data(LintDataRequest { training: name }).await?.into_inner();
            session.output.show(&report.to_json(), |out| render::report(&report, out))?;
        }
        DataCommand::Export(args) => export(session, args).await?,
    }
    Ok(CommandOutcome::Done)
}

async fn samples(
    session: &ClientSession,
    training: String,
    part: Option<SamplePartArg>,
    limit: u32,
) -> Result<Streaming<TrainingSample>, Error> {
    let part = match part {
        None => SamplePart::Unspecified,
        Some(SamplePartArg::Train) => SamplePart::Train,
        Some(SamplePartArg::HeldOut) => SamplePart::HeldOut,
    };
    let request = ListSamplesRequest { training, part: part.into(), limit };
    Ok(session.daemon.training().list_samples(request).await?.into_inner())
}

async fn show(session: &mut ClientSession, args: DataShowArgs) -> Result<(), Error> {
    let DataShowArgs { name, part, limit } = args;
    let mut samples = samples(session, name, part, limit).await?;
    let mut is_first = true;
    while let Some(sample) = samples.message().await? {
        if session.output.is_json() {
            session.output.object(&sample.to_json())?;
        } else {
            session.output.render(|out| render::sample(&sample, is_first, out))?;
        }
        is_first = false;
    }
    if is_first && !session.output.is_json() {
        session.output.render(|out| {
            out.push("there are no samples: `artel data lint` says what was left out").newline();
        })?;
    }
    Ok(())
}

async fn export(session: &mut ClientSession, args: DataExportArgs) -> Result<(), Error> {
    let DataExportArgs { name, file, part } = args;
    let mut samples = samples(session, name, part, 0).await?;
    let failed = |error: io::Error| match &file {
        Some(file) => Error::file(file)(error),
        None => error.into(),
    };
    let out: Box<dyn Write> = match &file {
        Some(file) => Box::new(File::create(file).map_err(failed)?),
        None => Box::new(io::stdout().lock()),
    };
    let (mut out, mut count) = (BufWriter::new(out), 0);
    while let Some(sample) = samples.message().await? {
        writeln!(out, "{}", chat(&sample)).map_err(failed)?;
        count += 1;
    }
    out.flush().map_err(failed)?;
    drop(out);
    if let Some(file) = &file {
        let path = file.display().to_string();
        session.output.show(&json!({"file": path, "samples": count}), |out| {
            out.push(format_args!("wrote {count} samples to {path}")).newline();
        })?;
    }
    Ok(())
}

/// A sample in the form of OpenAI's chats.
fn chat(sample: &TrainingSample) -> Value {
    let message = |message: &ChatMessage| {
        let role = match message.role() {
            ChatRole::System => "system",
            ChatRole::Assistant => "assistant",
            _ => "user",
        };
        json!({"role": role, "content": message.text})
    };
    let answer = json!({"role": "assistant", "content": sample.answer});
    json!({"messages": sample.messages.iter().map(message).chain([answer]).collect::<Vec<_>>()})
}
