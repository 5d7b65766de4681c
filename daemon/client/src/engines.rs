//! `artel devices`, `engines`, `plan`, `load` and `unload`.

use std::time::SystemTime;

use artel_proto::v1::{
    Device, Engine, EngineState, GetPlacementRequest, ListDevicesRequest, ListEnginesRequest, LoadRequest,
    UnloadRequest,
};
use artel_terminal::{CommandOutcome, brief, bytes};

use crate::connect::{DaemonClient, with_deadline};
use crate::error::Error;
use crate::json::{EnumName, ToJson};
use crate::render::engines as render;
use crate::session::ClientSession;

/// How often the progress of a loading model is queried.
const PROGRESS_INTERVAL: std::time::Duration = std::time::Duration::from_millis(500);
/// Entries of one page, the maximum that the daemon allows.
const PAGE_ITEMS: i32 = 1000;

/// Lists the devices.
pub(super) async fn devices(session: &mut ClientSession) -> Result<CommandOutcome, Error> {
    let mut request = ListDevicesRequest { page_size: PAGE_ITEMS, page_token: String::new() };
    let mut devices: Vec<Device> = Vec::new();
    loop {
        let page = session.daemon.engines().list_devices(with_deadline(request.clone())).await?.into_inner();
        devices.extend(page.devices);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if session.output.is_json() {
        devices.iter().try_for_each(|device| session.output.object(&device.to_json()))?;
    } else {
        session.output.render(|out| render::devices(&devices, out))?;
    }
    Ok(CommandOutcome::Done)
}

/// Lists the engines.
pub(super) async fn engines(session: &mut ClientSession) -> Result<CommandOutcome, Error> {
    let mut request = ListEnginesRequest { page_size: PAGE_ITEMS, ..Default::default() };
    let mut engines: Vec<Engine> = Vec::new();
    loop {
        let page = session.daemon.engines().list_engines(with_deadline(request.clone())).await?.into_inner();
        engines.extend(page.engines);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if session.output.is_json() {
        engines.iter().try_for_each(|engine| session.output.object(&engine.to_json()))?;
    } else {
        session.output.render(|out| render::engines(&engines, SystemTime::now(), out))?;
    }
    Ok(CommandOutcome::Done)
}

/// Shows the placement of models. A model that does not fit is a result, not a failure.
pub(super) async fn plan(session: &mut ClientSession, models: Vec<String>) -> Result<CommandOutcome, Error> {
    let request = GetPlacementRequest { models };
    let placement = session.daemon.engines().get_placement(with_deadline(request)).await?.into_inner();
    session.output.show(&placement.to_json(), |out| render::placement(&placement, out))?;
    Ok(CommandOutcome::Done)
}

/// Loads a model and waits without a deadline until it is ready.
pub(super) async fn load(session: &mut ClientSession, model: String) -> Result<CommandOutcome, Error> {
    let (mut engines, request) = (session.daemon.engines(), LoadRequest { model: model.clone() });
    let loading = engines.load(request);
    tokio::pin!(loading);
    session.output.start_status_line();
    let answer = loop {
        tokio::select! {
            answer = &mut loading => break answer,
            () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                let line = progress(&session.daemon, &model).await;
                session.output.set_status(line.unwrap_or_default());
            }
        }
    };
    session.output.finish_status_line()?;
    let answer = answer?.into_inner();
    let engine = answer.engine.as_ref().ok_or(Error::IncompleteAnswer("the engine"))?;
    session.output.show(&answer.to_json(), |out| {
        out.push(format_args!("{}: {} on {}", engine.model, engine.state().enum_name(), engine.devices.join(", ")))
            .newline();
        for model in &answer.unloaded {
            out.push(format_args!("{model}: evicted")).newline();
        }
    })?;
    Ok(CommandOutcome::Done)
}

/// The progress of a loading model; none if the daemon does not report it.
async fn progress(daemon: &DaemonClient, model: &str) -> Option<String> {
    let request = ListEnginesRequest { model: model.to_owned(), ..Default::default() };
    let engines = daemon.engines().list_engines(with_deadline(request)).await.ok()?.into_inner().engines;
    let loading = engines.iter().find(|engine| engine.state() == EngineState::Loading)?;
    Some(format!("{}: {:.0} %", brief(model, 40), loading.loaded_fraction * 100.0))
}

/// Unloads a model and waits until its memory is free.
pub(super) async fn unload(
    session: &mut ClientSession,
    model: String,
    interrupt: bool,
) -> Result<CommandOutcome, Error> {
    let request = UnloadRequest { model: model.clone(), interrupt };
    let answer = session.daemon.engines().unload(request).await?.into_inner();
    session.output.show(&answer.to_json(), |out| {
        out.push(format_args!("{model}: unloaded, {} freed", bytes(answer.freed_bytes))).newline();
    })?;
    Ok(CommandOutcome::Done)
}
