//! The place of one model: on which devices, and why there.

use crate::device::{Bytes, Device, Kind, demand, host};
use crate::layout::{self, Layout};
use crate::need::{Devices, Need, Split};
use crate::refusal::{Refusal, Shortage};
use crate::remedy;
use crate::size::{bytes, list};

/// Where a model goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The model.
    pub model: String,
    /// How it is spread; [`Split::None`] on one device.
    pub split: Split,
    /// The devices that compute, in the order in which llama.cpp is to be told of them.
    pub parts: Vec<Part>,
    /// The device of the machine's memory and the bytes that lie there beside the parts: input embedding and process. None
    /// where the CPU computes, since they are in its part then, and where no CPU is among the devices.
    pub host: Option<(String, u64)>,
    /// Why here, in words and figures.
    pub reason: String,
}

/// What of a model goes to one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The device.
    pub device: String,
    /// Its share, for llama.cpp's `tensor_split`, to be passed on as it is: with these numbers its arithmetic gives the layers
    /// that are planned here.
    pub share: f32,
    /// How many layers lie here; they follow those of the part before.
    pub layers: usize,
    /// Whether the output lies here.
    pub output: bool,
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of cache, over all lanes.
    pub cache: u64,
    /// Bytes of buffers, over all lanes.
    pub compute: u64,
    /// Bytes that the process takes besides; only where the CPU computes.
    pub process: u64,
}

impl Part {
    /// Bytes of all that.
    pub fn bytes(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.compute).saturating_add(self.process)
    }
}

impl Place {
    /// What it takes, by device, the machine's memory included.
    pub fn bytes(&self) -> Bytes {
        let parts = self.parts.iter().map(|part| (part.device.clone(), part.bytes()));
        parts.chain(self.host.clone()).collect()
    }

    /// The names of the devices that compute, in order.
    pub fn devices(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.device.as_str()).collect()
    }

    /// The share of each part, adding up to 1.
    pub fn fractions(&self) -> Vec<f64> {
        let sum: f64 = self.parts.iter().map(|part| f64::from(part.share)).sum();
        self.parts.iter().map(|part| f64::from(part.share) / sum).collect()
    }

    /// What it takes of each computing device, as people read it: `CUDA0 1.2 GB, CUDA1 800 MB`.
    pub(crate) fn figures(&self) -> String {
        let part = |part: &Part| format!("{} {}", part.device, bytes(part.bytes()));
        self.parts.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

/// Finds the place of a model on devices that hold nothing else of ours.
///
/// A pin is kept. Without one, the first of these that has room: one GPU, that with the least room left over; the fewest GPUs
/// that have room together, by layers; an integrated GPU; the CPU; devices of other machines, alone and then together, with
/// the GPUs here if need be: the network comes last.
pub fn place(need: &Need, devices: &[Device]) -> Result<Place, Refusal> {
    fit(need, devices).map_err(|refusal| match refusal {
        Refusal::NoRoom { model, shortage, .. } => {
            Refusal::NoRoom { remedies: remedy::remedies(need, devices), model, shortage }
        }
        other => other,
    })
}

/// The same without remedies, for those who only want to know whether there is room.
pub(crate) fn fit(need: &Need, devices: &[Device]) -> Result<Place, Refusal> {
    match &need.devices {
        Devices::Auto => anywhere(need, devices),
        Devices::These(names) => pinned(need, names, devices),
    }
}

fn pinned(need: &Need, names: &[String], devices: &[Device]) -> Result<Place, Refusal> {
    let chosen: Vec<&Device> = names.iter().map(|name| named(need, name, devices)).collect::<Result<_, _>>()?;
    check(need, &chosen)?;
    let mut search = Search::new(need, devices);
    let found = match need.split {
        Split::None => search.one(&chosen),
        _ if chosen.len() == 1 => search.one(&chosen),
        _ => search.all(&chosen),
    };
    let Some(mut place) = found else { return Err(search.refusal()) };
    let free = |part: &Part| {
        let device = devices.iter().find(|device| device.name == part.device);
        format!("{} of {} free", bytes(part.bytes()), bytes(device.map_or(0, |device| device.free)))
    };
    place.reason = match place.parts.as_slice() {
        [part] => format!("pinned to {}: {}", list(names), free(part)),
        parts => {
            let part = |part: &Part| format!("{} takes {}", part.device, free(part));
            let by = if need.shares.is_some() { "the given shares" } else { "free memory" };
            let each = parts.iter().map(part).collect::<Vec<_>>().join(", ");
            format!("pinned to {}, split by {by}: {each}", list(names))
        }
    };
    Ok(place)
}

fn named<'a>(need: &Need, name: &str, devices: &'a [Device]) -> Result<&'a Device, Refusal> {
    devices.iter().find(|device| device.name == name).ok_or_else(|| Refusal::unknown(&need.model, name, devices))
}

/// Whether the pins can be meant as they are written.
fn check(need: &Need, chosen: &[&Device]) -> Result<(), Refusal> {
    let refuse = |what: String| Err(Refusal::Impossible { model: need.model.clone(), what });
    let names: Vec<&str> = chosen.iter().map(|device| device.name.as_str()).collect();
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return refuse(format!("{} is named twice", twice.1));
    }
    let spread = chosen.len() > 1 && need.split != Split::None;
    if spread && let Some(cpu) = chosen.iter().find(|device| device.kind == Kind::Cpu) {
        return refuse(format!("{} stands alone: a split is over other devices", cpu.name));
    }
    let no_rows = |device: &&&Device| matches!(device.kind, Kind::Rpc | Kind::IntegratedGpu);
    if spread
        && need.split == Split::Row
        && let Some(device) = chosen.iter().find(no_rows)
    {
        return refuse(format!("{} cannot be split by rows; `split: layer` can", device.name));
    }
    match &need.shares {
        Some(shares) if shares.len() != chosen.len() => {
            refuse(format!("`shares` has {} numbers and `devices` {}", shares.len(), chosen.len()))
        }
        Some(shares) if shares.iter().any(|share| !share.is_finite() || *share < 0.0) => {
            refuse("a share is a number from 0".to_owned())
        }
        Some(shares) if shares.iter().sum::<f32>() <= 0.0 || !shares.iter().sum::<f32>().is_finite() => {
            refuse("the shares add up to nothing".to_owned())
        }
        _ => Ok(()),
    }
}

fn anywhere(need: &Need, devices: &[Device]) -> Result<Place, Refusal> {
    if need.shares.is_some() {
        let what = "shares without `devices`: nobody could say whose they are".to_owned();
        return Err(Refusal::Impossible { model: need.model.clone(), what });
    }
    let of = |kinds: &[Kind]| devices.iter().filter(|device| kinds.contains(&device.kind)).collect::<Vec<_>>();
    let gpus = of(&[Kind::Gpu]);
    let tiers = [
        (gpus.clone(), true),
        (of(&[Kind::IntegratedGpu]), false),
        (of(&[Kind::Cpu]), false),
        (of(&[Kind::Rpc]), true),
        (of(&[Kind::Gpu, Kind::Rpc]), true),
    ];
    let mut search = Search::new(need, devices);
    for (tier, together) in &tiers {
        let found = search.one(tier).or_else(|| if *together { search.several(tier) } else { None });
        if let Some(mut place) = found {
            place.reason = search.why(&place, &gpus);
            return Ok(place);
        }
    }
    Err(search.refusal())
}

/// A search for room, which remembers where the least was missing.
struct Search<'a> {
    need: &'a Need,
    devices: &'a [Device],
    /// What is missing in all, and where the most of it.
    nearest: Option<(u64, Shortage)>,
}

impl<'a> Search<'a> {
    fn new(need: &'a Need, devices: &'a [Device]) -> Self {
        Self { need, devices, nearest: None }
    }

    /// One of these alone: that with the least room left over, the CPU last.
    fn one(&mut self, chosen: &[&Device]) -> Option<Place> {
        let fits = chosen.iter().filter_map(|device| {
            let place = self.accept(layout::alone(self.need, device, host(self.devices)))?;
            Some(((device.kind == Kind::Cpu, device.free - place.parts[0].bytes()), place))
        });
        fits.min_by_key(|(last, _)| *last).map(|(_, place)| place)
    }

    /// The fewest of these together, those with the most free memory.
    fn several(&mut self, chosen: &[&Device]) -> Option<Place> {
        if self.need.split == Split::None {
            return None;
        }
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(chosen[*at].free));
        (2..=chosen.len()).find_map(|count| {
            let mut these = order[..count].to_vec();
            these.sort_unstable();
            let these: Vec<&Device> = these.into_iter().map(|at| chosen[at]).collect();
            if self.need.split == Split::Row && these.iter().any(|device| device.kind == Kind::Rpc) {
                return None;
            }
            self.all(&these)
        })
    }

    /// All of these together: by the shares that were given, or by free memory, or else as full as they get.
    fn all(&mut self, chosen: &[&Device]) -> Option<Place> {
        let host = host(self.devices);
        let layouts: Vec<Layout> = match &self.need.shares {
            Some(shares) => vec![Layout::new(chosen, shares.clone())],
            None => [layout::by_free_memory(self.need, chosen), layout::filled(self.need, chosen)]
                .into_iter()
                .flatten()
                .collect(),
        };
        layouts.into_iter().find_map(|layout| self.accept(layout::spread(self.need, &layout, host)))
    }

    /// The place, if nothing is missing.
    fn accept(&mut self, place: Place) -> Option<Place> {
        let needs = demand(&place.bytes(), self.devices);
        let short = self.devices.iter().zip(needs).filter_map(|(device, needs)| Shortage::of(device, needs));
        let short: Vec<Shortage> = short.collect();
        let missing = short.iter().map(Shortage::missing).fold(0, u64::saturating_add);
        let Some(worst) = short.into_iter().max_by_key(Shortage::missing) else { return Some(place) };
        if self.nearest.as_ref().is_none_or(|(least, _)| missing < *least) {
            self.nearest = Some((missing, worst));
        }
        None
    }

    fn refusal(self) -> Refusal {
        let model = self.need.model.clone();
        match self.nearest {
            Some((_, shortage)) => Refusal::NoRoom { model, shortage, remedies: Vec::new() },
            None => Refusal::Impossible { model, what: "there is no device that it could be on".to_owned() },
        }
    }

    /// Why `place` is where it is, of all places.
    fn why(&self, place: &Place, gpus: &[&Device]) -> String {
        let kind =
            |part: &Part| self.devices.iter().find(|device| device.name == part.device).map(|device| device.kind);
        let free: u64 = place.parts.iter().filter_map(|part| self.free(&part.device)).sum();
        let room = format!("{} of {} free", bytes(place.parts.iter().map(Part::bytes).sum()), bytes(free));
        let lacking = match self.lacks(gpus) {
            None => "there is no GPU".to_owned(),
            Some(lacks) => format!("no GPU has room: {lacks}"),
        };
        match place.parts.as_slice() {
            [part] if kind(part) == Some(Kind::Gpu) && gpus.len() == 1 => format!("the GPU has room: {room}"),
            [part] if kind(part) == Some(Kind::Gpu) => format!("of the GPUs with room the fullest: {room}"),
            [part] if kind(part) == Some(Kind::Rpc) => format!("this machine has no room, another one has: {room}"),
            [_] => format!("{lacking}; {room}"),
            parts if parts.iter().any(|part| kind(part) == Some(Kind::Rpc)) => {
                format!("no machine has room alone; split by free memory: {}", place.figures())
            }
            _ => format!(
                "no GPU has room alone: {}; split by free memory: {}",
                self.lacks(gpus).unwrap_or_default(),
                place.figures()
            ),
        }
    }

    fn free(&self, name: &str) -> Option<u64> {
        self.devices.iter().find(|device| device.name == name).map(|device| device.free)
    }

    /// What each of them lacks for the whole model.
    fn lacks(&self, chosen: &[&Device]) -> Option<String> {
        let lack = |device: &&Device| {
            let part = layout::alone(self.need, device, host(self.devices)).parts.remove(0);
            let missing = part.bytes().saturating_sub(device.free);
            match missing {
                0 => format!("{} leaves too little of the machine's memory", device.name),
                missing => format!("{} lacks {} of {}", device.name, bytes(missing), bytes(part.bytes())),
            }
        };
        let lacks: Vec<String> = chosen.iter().map(lack).collect();
        if lacks.is_empty() { None } else { Some(lacks.join(", ")) }
    }
}
