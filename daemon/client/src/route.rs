//! `artel route`: previews one decision, or fits or evaluates the router on labelled cases.

mod evaluate;
mod fit;
mod preview;
mod svg;
mod table;

use artel_args::RouteArgs;
use artel_roles::{LabelledQuestion, routing};
use artel_terminal::CommandOutcome;

use crate::error::Error;
use crate::json::ToJson as _;
use crate::render::route as render;
use crate::session::ClientSession;
use preview::PreviewClient;

/// Routes a question, fits the router, or evaluates it.
pub(super) async fn run(session: &mut ClientSession, route: RouteArgs) -> Result<CommandOutcome, Error> {
    if let Some(path) = &route.eval {
        let cases = LabelledQuestion::load(path)?;
        let report = evaluate::evaluate(&mut PreviewClient::new(session, &route), &cases, route.confidence).await?;
        if let Some(svg) = &route.svg {
            std::fs::write(svg, svg::draw(&report))?;
        }
        session.output.show(&evaluate::to_json(&report), |out| table::render(&report, out))?;
        return Ok(CommandOutcome::Done);
    }
    if route.fit.is_some() || route.feedback {
        return fit(session, &route).await;
    }
    let text = route.text.clone().ok_or_else(|| Error::Usage("the question is missing".to_owned()))?;
    let answer = PreviewClient::new(session, &route).preview(text, route.signals.clone()).await?;
    let decision = answer.decision.as_ref().ok_or(Error::IncompleteAnswer("the decision"))?;
    let mut json = decision.to_json();
    if !answer.catalog_version.is_empty() {
        json["catalog_version"] = answer.catalog_version.as_str().into();
    }
    session.output.show(&json, |out| render::decision(decision, out))?;
    Ok(CommandOutcome::Done)
}

/// Fits weights to cases and feedback, and prints them or writes them to a file.
async fn fit(session: &mut ClientSession, route: &RouteArgs) -> Result<CommandOutcome, Error> {
    let mut cases = route.fit.as_deref().map(LabelledQuestion::load).transpose()?.unwrap_or_default();
    let mut client = PreviewClient::new(session, route);
    if route.feedback {
        cases.extend(client.feedback().await?);
    }
    let name = route.settings.clone().unwrap_or_else(|| routing::DEFAULT_ROUTER.to_owned());
    let fitted = fit::fit(&mut client, &cases, &name).await?;
    let description = format!("Fitted to {} cases.", cases.len());
    let yaml = routing::yaml(&fitted.settings, &name, &description);
    if let Some(path) = &route.write {
        std::fs::write(path, &yaml)?;
    }
    let (is_written, summary) = (route.write.is_some(), fit::summary(&fitted));
    session.output.show(&fit::to_json(&fitted, &yaml), |out| {
        if !is_written {
            out.push(yaml.trim_end()).newline();
        }
        summary.iter().for_each(|line| {
            out.push(format_args!("# {line}")).newline();
        });
    })?;
    Ok(CommandOutcome::Done)
}
