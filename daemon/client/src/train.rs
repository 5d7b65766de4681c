//! `artel train`.

use std::fs;
use std::path::Path;

use artel_args::{AdapterFormatArg, TrainCommand, TrainExportArgs};
use artel_proto::v1::{
    AdapterChunk, AdapterFormat, DeleteRunRequest, ExportRunRequest, GetRunRequest, GetTrainerRequest, ListRunsRequest,
    RunState, SetUpTrainerRequest, StartRunRequest, StopRunRequest, TrainerState, TrainingRun, WatchRunRequest,
};
use artel_terminal::{CommandOutcome, bytes};
use serde_json::json;

use crate::error::Error;
use crate::json::ToJson;
use crate::received_files::ReceivedFiles;
use crate::render::{loss_curve, train as render};
use crate::session::ClientSession;

pub(super) async fn run(session: &mut ClientSession, command: TrainCommand) -> Result<CommandOutcome, Error> {
    match command {
        TrainCommand::Setup => set_up(session).await?,
        TrainCommand::Start { name, detach } => return start(session, name, detach).await,
        TrainCommand::Watch { run } => return watch(session, run).await,
        TrainCommand::List { name } => {
            let request = ListRunsRequest { training: name.unwrap_or_default() };
            let runs = session.daemon.training().list_runs(request).await?.into_inner().runs;
            if session.output.is_json() {
                for run in &runs {
                    session.output.object(&run.to_json())?;
                }
            } else {
                session.output.render(|out| render::list(&runs, out))?;
            }
        }
        TrainCommand::Show { run, svg } => show(session, run, svg.as_deref()).await?,
        TrainCommand::Compare { one, other } => {
            let (one, other) = (get(session, one).await?, get(session, other).await?);
            let both = json!({"one": one.to_json(), "other": other.to_json()});
            session.output.show(&both, |out| render::comparison(&one, &other, out))?;
        }
        TrainCommand::Stop { run } => {
            let run = session.daemon.training().stop_run(StopRunRequest { run }).await?.into_inner();
            session.output.show(&run.to_json(), |out| render::end(&run, out))?;
        }
        TrainCommand::Export(args) => export(session, args).await?,
        TrainCommand::Delete { run } => {
            session.daemon.training().delete_run(DeleteRunRequest { run: run.clone() }).await?;
            session.output.show(&json!({"run": run, "deleted": true}), |out| {
                out.push(format_args!("deleted {run}")).newline();
            })?;
        }
    }
    Ok(CommandOutcome::Done)
}

async fn set_up(session: &mut ClientSession) -> Result<(), Error> {
    let mut client = session.daemon.training();
    let trainer = client.get_trainer(GetTrainerRequest {}).await?.into_inner();
    if trainer.state() == TrainerState::Ready {
        return Ok(session.output.show(&trainer.to_json(), |out| render::trainer(&trainer, out))?);
    }
    if !session.output.is_json() {
        session.output.render(|out| render::installation(&trainer, out))?;
    }
    session.output.start_status_line();
    let mut progress = client.set_up_trainer(SetUpTrainerRequest {}).await?.into_inner();
    let mut is_installed = false;
    while let Some(told) = progress.message().await? {
        is_installed |= told.trainer.is_some();
        if session.output.is_json() {
            session.output.object(&told.to_json())?;
        } else if let Some(trainer) = &told.trainer {
            session.output.finish_status_line()?;
            session.output.render(|out| render::trainer(trainer, out))?;
        } else {
            session.output.set_status(format!("{}, {} on disk", told.step, bytes(told.disk_bytes)));
        }
    }
    session.output.finish_status_line()?;
    if is_installed {
        return Ok(());
    }
    Err(Error::DaemonEnded("the trainer is not installed; `artel train setup` goes on from there".to_owned()))
}

async fn start(session: &mut ClientSession, training: String, detach: bool) -> Result<CommandOutcome, Error> {
    let run = session.daemon.training().start_run(StartRunRequest { training }).await?.into_inner();
    if session.output.is_json() {
        session.output.object(&run.to_json())?;
    } else {
        session.output.render(|out| render::started(&run, out))?;
    }
    if detach { Ok(CommandOutcome::Done) } else { watch(session, run.run).await }
}

/// Follows a run; the command fails if the run does.
async fn watch(session: &mut ClientSession, run: String) -> Result<CommandOutcome, Error> {
    let mut views = session.daemon.training().watch_run(WatchRunRequest { run: run.clone() }).await?.into_inner();
    session.output.start_status_line();
    let mut last = None;
    while let Some(view) = views.message().await? {
        if session.output.is_json() {
            session.output.object(&view.to_json())?;
        } else {
            session.output.set_status(render::progress(&view));
        }
        last = Some(view);
    }
    session.output.finish_status_line()?;
    let Some(last) = last.filter(|last| has_ended(last.state())) else {
        return Err(Error::DaemonEnded(format!("the training run `{run}` goes on when it serves again")));
    };
    if !session.output.is_json() {
        session.output.render(|out| render::end(&last, out))?;
    }
    let has_succeeded = last.state() == RunState::Succeeded;
    Ok(if has_succeeded { CommandOutcome::Done } else { CommandOutcome::Failed })
}

fn has_ended(state: RunState) -> bool {
    matches!(state, RunState::Succeeded | RunState::Failed | RunState::Stopped)
}

async fn get(session: &ClientSession, run: String) -> Result<TrainingRun, Error> {
    Ok(session.daemon.training().get_run(GetRunRequest { run }).await?.into_inner())
}

async fn show(session: &mut ClientSession, run: String, svg: Option<&Path>) -> Result<(), Error> {
    let run = get(session, run).await?;
    if let Some(path) = svg {
        fs::write(path, loss_curve::svg(&run.run, &run.curve)).map_err(Error::file(path))?;
    }
    Ok(session.output.show(&run.to_json(), |out| render::run(&run, out))?)
}

async fn export(session: &mut ClientSession, args: TrainExportArgs) -> Result<(), Error> {
    let TrainExportArgs { run, dir, format } = args;
    let format = match format {
        AdapterFormatArg::Gguf => AdapterFormat::Gguf,
        AdapterFormatArg::Peft => AdapterFormat::Peft,
    };
    let request = ExportRunRequest { run, format: format.into() };
    let mut chunks = session.daemon.training().export_run(request).await?.into_inner();
    let mut files = ReceivedFiles::new(dir)?;
    while let Some(AdapterChunk { file, data }) = chunks.message().await? {
        files.write(&file, &data)?;
    }
    let written: Vec<String> = files.finish()?.iter().map(|path| path.display().to_string()).collect();
    Ok(session.output.show(&json!({"files": written}), |out| {
        for path in &written {
            out.push(format_args!("wrote {path}")).newline();
        }
    })?)
}
