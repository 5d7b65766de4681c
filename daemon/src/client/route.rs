//! `artel route`: one question, or many whose answers are known.

mod ask;
mod fit;
mod measure;
mod picture;
mod table;

use artel_roles::LabelledQuestion;

use super::Session;
use super::error::{Error, Exit};
use super::json::Json;
use super::render::route as render;
use crate::args::Route;
use ask::Asker;

/// Asks who would get a question, fits the router to cases, or measures it with cases.
pub(super) async fn run(session: &mut Session, route: Route) -> Result<Exit, Error> {
    if let Some(path) = &route.eval {
        let cases = LabelledQuestion::load(path)?;
        let report = measure::measure(&mut Asker::new(session, &route), &cases, route.confidence).await?;
        if let Some(svg) = &route.svg {
            std::fs::write(svg, picture::draw(&report))?;
        }
        session.output.show(&report.json(), |page| table::render(&report, page))?;
        return Ok(Exit::Done);
    }
    if route.fit.is_some() || route.feedback {
        return fit(session, &route).await;
    }
    let text = route.text.clone().ok_or_else(|| Error::Usage("there is no question".to_owned()))?;
    let answer = Asker::new(session, &route).preview(text, route.signals.clone()).await?;
    let decision = answer.decision.as_ref().ok_or(Error::Answer("the decision"))?;
    session.output.show(&answer.json(), |page| render::decision(decision, page))?;
    Ok(Exit::Done)
}

/// Weights from cases and from feedback: printed, or written to a file.
async fn fit(session: &mut Session, route: &Route) -> Result<Exit, Error> {
    let mut cases = route.fit.as_deref().map(LabelledQuestion::load).transpose()?.unwrap_or_default();
    let mut asker = Asker::new(session, route);
    if route.feedback {
        cases.extend(asker.feedback().await?);
    }
    let name = route.settings.clone().unwrap_or_else(|| artel_roles::routing::DEFAULT_ROUTER.to_owned());
    let fitted = fit::fit(&mut asker, &cases, &name).await?;
    let yaml = fitted.routing.yaml(&name, &format!("Fitted to {} cases.", cases.len()));
    if let Some(path) = &route.write {
        std::fs::write(path, &yaml)?;
    }
    let (written, summary) = (route.write.is_some(), fitted.summary());
    session.output.show(&fitted.json(&yaml), |page| {
        if !written {
            page.put(yaml.trim_end()).end();
        }
        summary.iter().for_each(|line| {
            page.put(format_args!("# {line}")).end();
        });
    })?;
    Ok(Exit::Done)
}
