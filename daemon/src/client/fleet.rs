//! `artel devices`, `engines`, `plan`, `load` and `unload`.

use artel_proto::v1::{
    Device, Engine, EngineState, GetPlacementRequest, ListDevicesRequest, ListEnginesRequest, LoadRequest,
    UnloadRequest,
};

use super::Session;
use super::connect::{Daemon, prompt};
use super::error::{Error, Exit};
use super::json::{Json, Word};
use super::render::fleet as render;
use super::render::page::brief;
use super::render::time::bytes;

/// How often a person who waits hears how far a model is.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);
/// The most entries of one page.
const PAGE: i32 = 1000;

/// Lists the devices.
pub(super) async fn devices(session: &mut Session) -> Result<Exit, Error> {
    let mut request = ListDevicesRequest { page_size: PAGE, page_token: String::new() };
    let mut devices: Vec<Device> = Vec::new();
    loop {
        let page = session.daemon.fleet().list_devices(prompt(request.clone())).await?.into_inner();
        devices.extend(page.devices);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if session.output.is_json() {
        devices.iter().try_for_each(|device| session.output.object(&device.json()))?;
    } else {
        session.output.render(|page| render::devices(&devices, page))?;
    }
    Ok(Exit::Done)
}

/// Lists the engines.
pub(super) async fn engines(session: &mut Session) -> Result<Exit, Error> {
    let mut request = ListEnginesRequest { page_size: PAGE, ..Default::default() };
    let mut engines: Vec<Engine> = Vec::new();
    loop {
        let page = session.daemon.fleet().list_engines(prompt(request.clone())).await?.into_inner();
        engines.extend(page.engines);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if session.output.is_json() {
        engines.iter().try_for_each(|engine| session.output.object(&engine.json()))?;
    } else {
        session.output.render(|page| render::engines(&engines, page))?;
    }
    Ok(Exit::Done)
}

/// Says which model belongs where. That one has no place is an answer too.
pub(super) async fn plan(session: &mut Session, models: Vec<String>) -> Result<Exit, Error> {
    let request = GetPlacementRequest { models };
    let placement = session.daemon.fleet().get_placement(prompt(request)).await?.into_inner();
    session.output.show(&placement.json(), |page| render::placement(&placement, page))?;
    Ok(Exit::Done)
}

/// Loads a model and waits until it serves, however long that takes.
pub(super) async fn load(session: &mut Session, model: String) -> Result<Exit, Error> {
    let (mut fleet, request) = (session.daemon.fleet(), LoadRequest { model: model.clone() });
    let loading = fleet.load(request);
    tokio::pin!(loading);
    session.output.go_live();
    let answer = loop {
        tokio::select! {
            answer = &mut loading => break answer,
            () = tokio::time::sleep(LOOK) => {
                let line = progress(&session.daemon, &model).await;
                session.output.status(line.unwrap_or_default());
            }
        }
    };
    session.output.settle()?;
    let answer = answer?.into_inner();
    let engine = answer.engine.as_ref().ok_or(Error::Answer("the engine"))?;
    session.output.show(&answer.json(), |page| {
        page.put(format_args!("{}: {} on {}", engine.model, engine.state().word(), engine.devices.join(", "))).end();
        for model in &answer.unloaded {
            page.put(format_args!("{model}: unloaded meanwhile")).end();
        }
    })?;
    Ok(Exit::Done)
}

/// How far a model is that is loaded; none if the daemon does not say.
async fn progress(daemon: &Daemon, model: &str) -> Option<String> {
    let request = ListEnginesRequest { model: model.to_owned(), ..Default::default() };
    let engines = daemon.fleet().list_engines(prompt(request)).await.ok()?.into_inner().engines;
    let loading = engines.iter().find(|engine| engine.state() == EngineState::Loading)?;
    Some(format!("{}: {:.0} %", brief(model, 40), loading.loaded_fraction * 100.0))
}

/// Unloads a model and waits until its memory is free.
pub(super) async fn unload(session: &mut Session, model: String, interrupt: bool) -> Result<Exit, Error> {
    let request = UnloadRequest { model: model.clone(), interrupt };
    let answer = session.daemon.fleet().unload(request).await?.into_inner();
    session.output.show(&answer.json(), |page| {
        page.put(format_args!("{model}: unloaded, {} free again", bytes(answer.freed_bytes))).end();
    })?;
    Ok(Exit::Done)
}
