//! `artel route`: previews one decision, or fits or evaluates the router on labelled cases.

mod evaluate;
mod fit;
mod preview;
mod svg;
mod table;

use artel_roles::LabelledQuestion;

use super::ClientSession;
use super::error::{CommandOutcome, Error};
use super::json::ToJson;
use super::render::route as render;
use crate::args::RouteArgs;
use preview::PreviewClient;

/// Routes a question, fits the router, or evaluates it.
pub(super) async fn run(session: &mut ClientSession, route: RouteArgs) -> Result<CommandOutcome, Error> {
    if let Some(path) = &route.eval {
        let cases = LabelledQuestion::load(path)?;
        let report = evaluate::evaluate(&mut PreviewClient::new(session, &route), &cases, route.confidence).await?;
        if let Some(svg) = &route.svg {
            std::fs::write(svg, svg::draw(&report))?;
        }
        session.output.show(&report.to_json(), |out| table::render(&report, out))?;
        return Ok(CommandOutcome::Done);
    }
    if route.fit.is_some() || route.feedback {
        return fit(session, &route).await;
    }
    let text = route.text.clone().ok_or_else(|| Error::Usage("the question is missing".to_owned()))?;
    let answer = PreviewClient::new(session, &route).preview(text, route.signals.clone()).await?;
    let decision = answer.decision.as_ref().ok_or(Error::IncompleteAnswer("the decision"))?;
    session.output.show(&answer.to_json(), |out| render::decision(decision, out))?;
    Ok(CommandOutcome::Done)
}

/// Fits weights to cases and feedback, and prints them or writes them to a file.
async fn fit(session: &mut ClientSession, route: &RouteArgs) -> Result<CommandOutcome, Error> {
    let mut cases = route.fit.as_deref().map(LabelledQuestion::load).transpose()?.unwrap_or_default();
    let mut client = PreviewClient::new(session, route);
    if route.feedback {
        cases.extend(client.feedback().await?);
    }
    let name = route.settings.clone().unwrap_or_else(|| artel_roles::routing::DEFAULT_ROUTER.to_owned());
    let fitted = fit::fit(&mut client, &cases, &name).await?;
    let yaml = fitted.routing.yaml(&name, &format!("Fitted to {} cases.", cases.len()));
    if let Some(path) = &route.write {
        std::fs::write(path, &yaml)?;
    }
    let (is_written, summary) = (route.write.is_some(), fitted.summary());
    session.output.show(&fitted.json(&yaml), |out| {
        if !is_written {
            out.push(yaml.trim_end()).newline();
        }
        summary.iter().for_each(|line| {
            out.push(format_args!("# {line}")).newline();
        });
    })?;
    Ok(CommandOutcome::Done)
}
