//! Which model belongs where.

use std::collections::BTreeMap;

use artel_actors::{MemoryDemand, EngineReport, Loader as _, ModelMove};
use artel_placement::{ModelFootprint, Placement, PlacementError, UnplacedModel, plan};
use artel_proto::v1;
use tonic::Status;

use super::engine::spread;
use crate::grpc::Served;
use crate::grpc::value::moment;

impl Served {
    /// Where these models go on empty devices; without names, all of the catalog, those that are loaded where they are.
    pub(super) async fn placement(&self, names: &[String]) -> Result<v1::Placement, Status> {
        let (catalog, reports) = (self.crew.catalog(), self.reports().await?);
        let engines = catalog.engines();
        if let Some(name) = names.iter().find(|name| !engines.contains_key(*name)) {
            return Err(self.refuse(artel_actors::Error::NoModel { name: name.clone() }));
        }
        let (mut needs, mut unplaced) = (Vec::new(), Vec::new());
        for (name, model) in engines.into_iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
            match self.loader.reckon(&model, MemoryDemand::of(&catalog, &model, &self.models)).await {
                Ok(need) => needs.push(ModelFootprint { model: name, ..need }),
                Err(reason) => unplaced.push(v1::UnplacedModel { model: name, reason, ..v1::UnplacedModel::default() }),
            }
        }
        let devices = self.loader.devices(&self.taken().await?).await;
        let plan = plan(&needs, &devices);
        let serves = |name: &str| reports.iter().any(|report| report.id == name && report.stats.is_some());
        let there = if names.is_empty() { loaded(&reports) } else { BTreeMap::new() };
        unplaced.extend(plan.unplaced.iter().filter(|model| !there.contains_key(&model.model)).map(refused));
        let mut placed: Vec<v1::PlacedModel> = there.values().map(|place| put(place, serves(&place.model))).collect();
        let others = plan.placed.iter().filter(|place| !there.contains_key(&place.model));
        placed.extend(others.map(|place| put(place, serves(&place.model))));
        let moves = self.crew.model_moves().await.map_err(|e| self.refuse(e))?;
        Ok(v1::Placement {
            placed,
            unplaced,
            catalog_version: catalog.version().as_str().to_owned(),
            moves: moves.into_iter().map(moved).collect(),
        })
    }
}

/// Where engines are, by the names of their models.
fn loaded(reports: &[EngineReport]) -> BTreeMap<String, Placement> {
    let place = |report: &EngineReport| Some((report.id.clone(), report.placement.clone()?));
    reports.iter().filter_map(place).collect()
}

fn put(place: &Placement, loaded: bool) -> v1::PlacedModel {
    let (_, split, _) = spread(place);
    let shares = place.parts.iter().zip(place.fractions());
    let mut shares: Vec<v1::DeviceShare> = shares
        .map(|(part, share)| v1::DeviceShare { device: part.device.clone(), share, bytes: part.bytes() })
        .collect();
    if let Some((device, bytes)) = &place.host {
        shares.push(v1::DeviceShare { device: device.clone(), share: 0.0, bytes: *bytes });
    }
    v1::PlacedModel { model: place.model.clone(), split: split.into(), shares, reason: place.reason.clone(), loaded }
}

fn refused(unplaced: &UnplacedModel) -> v1::UnplacedModel {
    let shortage = unplaced.error.shortage();
    v1::UnplacedModel {
        model: unplaced.model.clone(),
        reason: unplaced.reason.clone(),
        device: shortage.map(|shortage| shortage.device.clone()).unwrap_or_default(),
        missing_bytes: shortage.map_or(0, artel_placement::MemoryShortage::missing),
        remedies: PlacementError::remedies(&unplaced.error).iter().map(ToString::to_string).collect(),
    }
}

fn moved(moved: ModelMove) -> v1::Move {
    v1::Move { time: Some(moment(moved.at)), model: moved.model, loaded: moved.loaded, reason: moved.reason }
}
