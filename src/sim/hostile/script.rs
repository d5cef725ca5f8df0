//! The script: which call meets which fault, and what that does beyond one answer.
//!
//! Not covered: bending an honest answer (`super::twist`), how bytes are sent (`super::body`).

use super::super::routes::{Api, Call, Captured, Reply, Request};
use super::super::when::Countdown;
use super::super::wire::error_json;
use super::body::{Answer, Carried, Delivery};
use super::kinds::{ApiFault, Meets};
use super::spec::FaultSpec;
use super::twist::{Asked, twist};
use crate::block::SnapshotUuid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// How often a snapshot that is being deleted slowly is shown as Deleting.
const SLOW_LOOKS: u32 = 30;
/// How far in the future the date of a Retry-After lies: it has whole seconds only.
const RETRY_DATE_IN: Duration = Duration::from_secs(2);
/// LBAs of a chunk.
const CHUNK: u64 = 64;

/// A fault that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetFault {
    /// Which.
    pub fault: ApiFault,
    /// The call that met it.
    pub call: Call,
    /// The number of that call since the server began, any call counted.
    pub number: u64,
}

/// The faults of one server and what became of them.
#[derive(Debug)]
pub(in super::super) struct Script {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    calls: u64,
    met: Vec<MetFault>,
    /// What is shown of a snapshot instead of the truth.
    shown: BTreeMap<String, Shown>,
    /// The page that a diff was last answered with.
    previous_page: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Rule {
    fault: ApiFault,
    call: Option<Call>,
    countdown: Countdown,
}

/// How a snapshot looks from outside.
#[derive(Clone, PartialEq, Debug)]
enum Shown {
    /// In this state, whatever its own.
    State(&'static str),
    /// As it was before it was deleted, Deleting, so many times.
    Leaving { body: Vec<u8>, looks_left: u32 },
}

impl Rule {
    fn can_meet(&self, call: Call) -> bool {
        self.fault.row().meets.call(call) && self.call.is_none_or(|only| only == call)
    }
}

impl Script {
    /// The script of these faults; those of the data plane are none of its business.
    pub(in super::super) fn new(specs: &[FaultSpec]) -> Script {
        let rule = |spec: &FaultSpec| match spec {
            FaultSpec::Api { fault, call, when } => {
                Some(Rule { fault: *fault, call: *call, countdown: when.countdown() })
            }
            FaultSpec::Data { .. } => None,
        };
        let rules = specs.iter().filter_map(rule).collect();
        Script { state: Mutex::new(State { rules, ..State::default() }) }
    }

    /// What happened so far, in order.
    pub(in super::super) fn met(&self) -> Vec<MetFault> {
        self.lock().met.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a routed call answered, by `api` or otherwise.
    pub(in super::super) fn play(
        &self,
        api: &Api,
        call: Call,
        captured: &Captured,
        request: &Request<'_>,
    ) -> Carried {
        let mut state = self.lock();
        state.calls += 1;
        if state.rules.is_empty() {
            // Held no longer than needed: an honest server answers several calls at once.
            drop(state);
            return Carried::Answer(api.answer(request).into());
        }
        if let Some(carried) = state.instead(call) {
            return carried;
        }
        let mut answer = Answer::from(state.carry_out(api, call, captured, request));
        state.show(call, captured, &mut answer);
        let asked = state.asked(api, call, captured, request);
        let page = (call == Call::Diff && answer.status == 200).then(|| answer.body.clone());
        let carried = state.afterwards(call, answer, &asked);
        state.previous_page = page.or(state.previous_page.take());
        carried
    }
}

impl State {
    fn note(&mut self, fault: ApiFault, call: Call) {
        let number = self.calls;
        self.met.push(MetFault { fault, call, number });
    }

    /// The first fault of those `wanted` that this call meets.
    fn meets(&mut self, call: Call, wanted: impl Fn(ApiFault) -> bool) -> Option<(ApiFault, bool)> {
        let rule = |rule: &&mut Rule| rule.can_meet(call) && wanted(rule.fault);
        let met = self.rules.iter_mut().filter(rule).find_map(|rule| {
            rule.countdown.meets().then(|| (rule.fault, !rule.countdown.is_over()))
        })?;
        self.note(met.0, call);
        Some(met)
    }

    /// What happens instead of the call.
    fn instead(&mut self, call: Call) -> Option<Carried> {
        let is_instead = |fault: ApiFault| instead_of(fault, false).is_some();
        let (fault, for_ever) = self.meets(call, is_instead)?;
        instead_of(fault, for_ever)
    }

    /// The call itself, with what a fault changes about what is done.
    fn carry_out(
        &mut self,
        api: &Api,
        call: Call,
        captured: &Captured,
        request: &Request<'_>,
    ) -> Reply {
        let deviates = |fault| {
            matches!(fault, ApiFault::Expired | ApiFault::LostDelete | ApiFault::SlowDelete)
        };
        let uuid = || captured.uuid.parse::<SnapshotUuid>().ok();
        match self.meets(call, deviates).map(|(fault, _)| fault) {
            Some(ApiFault::Expired) => {
                if let Some(uuid) = uuid() {
                    // One that is gone already has expired as well.
                    let _ = api.array.delete_snapshot(uuid);
                }
                api.answer(request)
            }
            Some(ApiFault::LostDelete) => Reply::nothing(),
            Some(ApiFault::SlowDelete) => {
                let path = request.path;
                let before = api.answer(&Request { method: "GET", path, ..*request });
                let reply = api.answer(request);
                if let (200, Some(body)) = (reply.status, in_state(&before.body, "Deleting")) {
                    let leaving = Shown::Leaving { body, looks_left: SLOW_LOOKS };
                    self.shown.insert(captured.uuid.clone(), leaving);
                }
                reply
            }
            _ => api.answer(request),
        }
    }

    /// Puts what earlier faults left to show in the place of the truth.
    fn show(&mut self, call: Call, captured: &Captured, answer: &mut Answer) {
        if call == Call::CreateSnapshot && answer.status == 200 {
            let sticky = |fault| matches!(fault, ApiFault::StuckCreating | ApiFault::Failed);
            let state = match self.meets(call, sticky) {
                Some((ApiFault::StuckCreating, _)) => Some("Creating"),
                Some(_) => Some("Failed"),
                None => None,
            };
            let uuid = text_member(&answer.body, "UUID");
            if let (Some(state), Some(uuid)) = (state, uuid) {
                self.shown.insert(uuid, Shown::State(state));
            }
        }
        let Some(uuid) = (call == Call::GetSnapshot).then_some(&captured.uuid) else { return };
        match self.shown.get_mut(uuid) {
            Some(Shown::State(state)) if answer.status == 200 => {
                let text = String::from_utf8_lossy(&answer.body);
                answer.body = in_state(&text, state).unwrap_or_default();
            }
            Some(Shown::Leaving { body, looks_left }) if *looks_left > 0 => {
                *looks_left -= 1;
                (answer.status, answer.body) = (200, body.clone());
            }
            _ => {}
        }
    }

    fn asked(&self, api: &Api, call: Call, captured: &Captured, request: &Request<'_>) -> Asked {
        if call != Call::Diff {
            return Asked::default();
        }
        let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
        let offset = pairs.clone().find(|(key, _)| *key == "offsetLBA");
        let offset: u64 = offset.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        let snapshot = captured.uuid.parse().ok().and_then(|uuid| api.array.snapshot(uuid));
        Asked {
            offset_lba: offset / CHUNK * CHUNK,
            len_lbas: snapshot.map_or(0, |snapshot| snapshot.len.get()),
            previous: self.previous_page.clone(),
        }
    }

    /// What comes of the answer: lost, bent or as it is.
    fn afterwards(&mut self, call: Call, answer: Answer, asked: &Asked) -> Carried {
        let mut met = None;
        for rule in self.rules.iter_mut().filter(|rule| rule.can_meet(call)) {
            // A call that the fault would leave as it is cannot meet it and is not counted.
            let Some(carried) = after(rule.fault, &answer, asked) else { continue };
            if rule.countdown.meets() {
                met = Some((rule.fault, carried));
                break;
            }
        }
        match met {
            Some((fault, carried)) => {
                self.note(fault, call);
                carried
            }
            None => Carried::Answer(answer),
        }
    }
}

/// What a fault answers instead of the call, if it is of that sort.
fn instead_of(fault: ApiFault, for_ever: bool) -> Option<Carried> {
    let status = |status: u16, words: &str| Answer::from(Reply::error(status, words));
    let limited = |after: &str| status(429, "slow down").with_header("retry-after", after);
    let busy = |code| status(code, "another snapshot of the volume is being created");
    let page = |status: u16, words: &str| Answer {
        status,
        content_type: "text/html; charset=utf-8",
        headers: Vec::new(),
        body: format!("<!DOCTYPE html><title>{words}</title><h1>{words}</h1>").into_bytes(),
        delivery: Delivery::Whole,
    };
    Some(Carried::Answer(match fault {
        ApiFault::Status500 => status(500, "internal error"),
        ApiFault::Status502 => page(502, "Bad Gateway"),
        ApiFault::Status503 => status(503, "unavailable"),
        ApiFault::Status504 => status(504, "context deadline exceeded"),
        ApiFault::Status408 => status(408, "request timeout"),
        ApiFault::Limit => status(429, "slow down"),
        ApiFault::LimitSeconds => limited("1"),
        ApiFault::LimitDate => limited(&httpdate::fmt_http_date(SystemTime::now() + RETRY_DATE_IN)),
        ApiFault::LimitNegative => limited("-5"),
        ApiFault::LimitAbsurd => limited("1000000000"),
        ApiFault::Unauthorized => status(401, "token is expired"),
        ApiFault::Forbidden => status(403, "permission denied"),
        ApiFault::Redirect => Answer::from(Reply::error(307, "moved"))
            .with_header("location", "https://elsewhere.invalid/api/v2/"),
        ApiFault::Html => page(200, "Log in"),
        ApiFault::ErrorBody => {
            let body = error_json("internal error", 13).into_bytes();
            Answer { status: 200, body, ..status(500, "") }
        }
        ApiFault::Busy400 => busy(400),
        ApiFault::Busy409 => busy(409),
        ApiFault::Busy412 => busy(412),
        ApiFault::Busy500 => busy(500),
        ApiFault::Busy503 => busy(503),
        ApiFault::Refused => return Some(Carried::Refuse { for_ever }),
        ApiFault::HangUp => return Some(Carried::HangUp),
        _ => return None,
    }))
}

/// What a fault makes of an answer once the call is done; `None` if this one cannot meet it.
fn after(fault: ApiFault, answer: &Answer, asked: &Asked) -> Option<Carried> {
    match fault {
        ApiFault::Silent => Some(Carried::Silent),
        ApiFault::CreateReplyLost | ApiFault::DeleteReplyLost if answer.status == 200 => {
            Some(Carried::HangUp)
        }
        ApiFault::CreateCommitted500 if answer.status == 200 => {
            Some(Carried::Answer(Reply::error(500, "internal error").into()))
        }
        fault if fault.row().meets == Meets::Object || fault.row().meets == Meets::Diff => {
            twist(fault, answer, asked).map(Carried::Answer)
        }
        _ => None,
    }
}

/// A snapshot's JSON with another state.
fn in_state(json: &str, state: &str) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_str(json).ok()?;
    value.as_object_mut()?.insert("state".to_owned(), Value::String(state.to_owned()));
    Some(value.to_string().into_bytes())
}

fn text_member(json: &[u8], key: &str) -> Option<String> {
    let value: Value = serde_json::from_slice(json).ok()?;
    Some(value.get(key)?.as_str()?.to_owned())
}
