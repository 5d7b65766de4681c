//! `artel knowledge`.

mod evaluate;
mod mean_interval;
mod search_quality;

use artel_args::{KnowledgeAddArgs, KnowledgeCommand, KnowledgeSearchArgs, SearchModeArg};
use artel_proto::v1::{
    AddTextRequest, GetSourceRequest, KnowledgeStatus, ListKnowledgeRequest, ListSourcesRequest, RemoveTextRequest,
    SearchKnowledgeRequest, SearchMode, SourceStatus,
};
use artel_terminal::CommandOutcome;
use tonic::Code;

use crate::error::Error;
use crate::json::ToJson;
use crate::render::knowledge as render;
use crate::session::ClientSession;
use crate::submit::{label_map, read_file};

pub(crate) use mean_interval::MeanInterval;
pub(crate) use search_quality::{HybridGain, SearchQuality};

/// Sources of one page.
const PAGE_ITEMS: i32 = 1000;

pub(super) async fn run(session: &mut ClientSession, command: KnowledgeCommand) -> Result<CommandOutcome, Error> {
    match command {
        KnowledgeCommand::Search(args) => search(session, args).await?,
        KnowledgeCommand::Status { name } => status(session, name).await?,
        KnowledgeCommand::Show { name, source: Some(source) } => show(session, name, source).await?,
        KnowledgeCommand::Show { name, source: None } => {
            let sources = sources(session, &name, false).await?;
            if session.output.is_json() {
                sources.iter().try_for_each(|source| session.output.object(&source.to_json()))?;
            } else {
                session.output.render(|out| render::sources(&sources, out))?;
            }
        }
        KnowledgeCommand::Add(args) => add(session, args).await?,
        KnowledgeCommand::Remove { name, source } => {
            let request = RemoveTextRequest { knowledge: name, source: source.clone() };
            let answer = session.daemon.knowledge().remove_text(request).await?.into_inner();
            session.output.show(&answer.to_json(), |out| {
                out.push("removed ").push(&source).newline();
            })?;
        }
        KnowledgeCommand::Eval { name, file } => evaluate::run(session, name, &file).await?,
    }
    Ok(CommandOutcome::Done)
}

async fn search(session: &mut ClientSession, args: KnowledgeSearchArgs) -> Result<(), Error> {
    let KnowledgeSearchArgs { name, query, top, mode, sources, labels, timings } = args;
    let request = SearchKnowledgeRequest {
        knowledge: name,
        query,
        top: top.unwrap_or(0),
        mode: mode.map_or(SearchMode::Unspecified, proto_mode).into(),
        sources,
        labels: label_map(labels),
    };
    // It may wait for the embedding model to be loaded, so it has no deadline.
    let answer = session.daemon.knowledge().search(request).await?.into_inner();
    if session.output.is_json() {
        for passage in &answer.passages {
            let mut json = passage.to_json();
            json["lines"] = serde_json::json!([passage.first_line, passage.last_line]);
            session.output.object(&json)?;
        }
        return Ok(());
    }
    session.output.render(|out| {
        render::passages(&answer.passages, answer.stale, out);
        if let Some(took) = answer.timings.filter(|_| timings) {
            render::timings(&took, out);
        }
    })?;
    Ok(())
}

pub(super) fn proto_mode(mode: SearchModeArg) -> SearchMode {
    match mode {
        SearchModeArg::Hybrid => SearchMode::Hybrid,
        SearchModeArg::Vector => SearchMode::Vector,
        SearchModeArg::Keyword => SearchMode::Keyword,
    }
}

async fn status(session: &mut ClientSession, name: Option<String>) -> Result<(), Error> {
    let answer = session.daemon.knowledge().list(ListKnowledgeRequest {}).await?.into_inner();
    let is_named = |status: &KnowledgeStatus| name.as_ref().is_none_or(|name| status.name == *name);
    let known: Vec<KnowledgeStatus> = answer.knowledge.into_iter().filter(is_named).collect();
    let failed = match &name {
        Some(name) => match sources(session, name, true).await {
            // The answer says how far it is: nothing has failed yet.
            Err(Error::Rejected(status)) if status.code() == Code::Unavailable && !known.is_empty() => Vec::new(),
            // A name that is unknown is refused.
            found => found?,
        },
        None => Vec::new(),
    };
    if session.output.is_json() {
        known.iter().try_for_each(|status| session.output.object(&status.to_json()))?;
        failed.iter().try_for_each(|source| session.output.object(&source.to_json()))?;
        return Ok(());
    }
    session.output.render(|out| {
        render::status(&known, out);
        render::failures(&failed, out);
    })?;
    Ok(())
}

async fn show(session: &mut ClientSession, knowledge: String, source: String) -> Result<(), Error> {
    let request = GetSourceRequest { knowledge, source };
    let answer = session.daemon.knowledge().get_source(request).await?.into_inner();
    session.output.show(&answer.to_json(), |out| render::source(&answer, out))?;
    Ok(())
}

async fn add(session: &mut ClientSession, args: KnowledgeAddArgs) -> Result<(), Error> {
    let KnowledgeAddArgs { name, source, file, markdown, labels } = args;
    let text = read_file(&file)?;
    let request = AddTextRequest { knowledge: name, source: source.clone(), text, markdown, labels: label_map(labels) };
    let answer = session.daemon.knowledge().add_text(request).await?.into_inner();
    session.output.show(&answer.to_json(), |out| render::added(&source, &answer, out))?;
    Ok(())
}

/// The sources of a knowledge, those alone that could not be read if these are asked for.
async fn sources(session: &mut ClientSession, knowledge: &str, only_failed: bool) -> Result<Vec<SourceStatus>, Error> {
    let knowledge = knowledge.to_owned();
    let mut request = ListSourcesRequest { knowledge, page_size: PAGE_ITEMS, page_token: String::new(), only_failed };
    let mut sources = Vec::new();
    loop {
        let page = session.daemon.knowledge().list_sources(request.clone()).await?.into_inner();
        sources.extend(page.sources);
        if page.next_page_token.is_empty() {
            return Ok(sources);
        }
        request.page_token = page.next_page_token;
    }
}
