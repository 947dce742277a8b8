//! Asks every member of etcd once a second, looks for etcd where it is not known, and tells the timeline and the log
//! what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use crate::collector::etcd::round::Round;
use crate::collector::etcd::{FOREIGN_PAGE, Known, NO_PAGE, absence};
use crate::config;
use crate::event::{Timeline, Timestamp};
use crate::source::etcd::{
    Answer, AskError, Asker, Cause, Consistency, Found, Material, Member, MemberId, Page, Read, find,
    read_health, read_page,
};
use crate::telemetry::with_causes;

/// How often files are looked at, and how long is waited where only a file or a certificate can change anything.
const RARELY: Duration = Duration::from_secs(10);

/// Asks etcd.
pub(super) struct Watcher {
    root: PathBuf,
    config: config::Etcd,
    known: Known,
    timeline: Arc<Timeline>,
    begun: Instant,
    looked: Option<(Instant, Found)>,
    material: Option<Material>,
    /// Why there is no certificate, where there should be one.
    unreadable: Option<AskError>,
    askers: BTreeMap<String, Asker>,
    /// Who answered at the endpoints that were given.
    seeds: BTreeMap<String, MemberId>,
    /// Endpoints that are no use to ask until then, and why.
    resting: BTreeMap<String, (Instant, AskError)>,
    /// What the log was told of each endpoint.
    told: BTreeMap<String, &'static str>,
    has_answered: bool,
}

/// Whom to ask, and who should answer.
struct Target {
    endpoint: String,
    expected: Option<MemberId>,
    asker: Option<Asker>,
    /// Whether to read a key as well.
    reads: bool,
}

/// What one target said.
struct Outcome {
    target: Target,
    answer: Answer,
    reads: BTreeMap<Consistency, Read>,
}

impl Watcher {
    pub(super) fn new(root: PathBuf, config: config::Etcd, known: Known, timeline: Arc<Timeline>) -> Self {
        Self {
            root,
            config,
            known,
            timeline,
            begun: Instant::now(),
            looked: None,
            material: None,
            unreadable: None,
            askers: BTreeMap::new(),
            seeds: BTreeMap::new(),
            resting: BTreeMap::new(),
            told: BTreeMap::new(),
            has_answered: false,
        }
    }

    pub(super) async fn run(mut self) -> Result<()> {
        let mut ticks = interval(self.config.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_there = true;
        let mut asked = Instant::now();
        loop {
            ticks.tick().await;
            if is_there || asked.elapsed() >= RARELY {
                asked = Instant::now();
                is_there = self.round().await;
            }
        }
    }

    /// Asks everybody; says whether there is etcd.
    pub(super) async fn round(&mut self) -> bool {
        let found = self.look();
        let patience = self.config.timeout;
        let targets = self.targets(&found);
        let material = self.material.clone();
        let asked = join_all(targets.into_iter().map(|target| ask(target, material.as_ref(), patience)));
        let health =
            async { if self.is_client(&found) { None } else { read_health(&found.page, patience).await } };
        let (page, health, outcomes) = tokio::join!(read_page(&found.page, patience), health, asked);
        let page = page.ok().ok_or(NO_PAGE).and_then(of_etcd);
        if let (Some(why), Err(_)) = (found.absence, &page) {
            self.known.lock().miss(absence(why));
            self.tell("etcd", absence(why), None);
            return false;
        }
        let round = Round { health, ..self.gather(outcomes, page, &found) };
        let events = self.known.lock().observe(round);
        for event in events {
            self.timeline.record(event);
        }
        true
    }

    /// What the files say. A certificate that was renewed begins all connections anew.
    fn look(&mut self) -> Found {
        if let Some((time, found)) = &self.looked
            && time.elapsed() < RARELY
        {
            return found.clone();
        }
        let found = find(&self.root, &self.config);
        let material = found.credentials.as_ref().map(|files| (files, files.read()));
        self.unreadable = None;
        let material = match material {
            None => None,
            Some((_, Ok(material))) => Some(material),
            Some((files, Err(error))) => {
                let endpoint = files.certificate.display().to_string();
                self.unreadable = Some(AskError { endpoint, cause: Cause::Credentials(error) });
                None
            }
        };
        if material != self.material {
            self.askers.clear();
            self.resting.clear();
            self.material = material;
        }
        self.looked = Some((Instant::now(), found.clone()));
        found
    }

    /// The members of the list, and of the endpoints that were given all as long as nobody answers, and those of who is in
    /// no list: a member that was removed and did not hear of it.
    fn targets(&mut self, found: &Found) -> Vec<Target> {
        let members = self.known.lock().members();
        let mut wanted: BTreeMap<String, Option<MemberId>> = BTreeMap::new();
        for member in &members {
            if let Some(endpoint) = self.endpoint(member) {
                wanted.insert(endpoint, Some(member.id));
            }
        }
        let is_lost = members.is_empty() || !self.has_answered;
        let is_listed = |id: &MemberId| members.iter().any(|member| member.id == *id);
        for endpoint in &found.endpoints {
            if is_lost || self.seeds.get(endpoint).is_some_and(|id| !is_listed(id)) {
                wanted.entry(endpoint.clone()).or_insert(None);
            }
        }
        self.resting.retain(|endpoint, (until, _)| *until > Instant::now() && wanted.contains_key(endpoint));
        let may_ask = |endpoint: &String| self.material.is_some() || endpoint.starts_with("http://");
        let mut targets: Vec<Target> = wanted
            .into_iter()
            .filter(|(endpoint, _)| may_ask(endpoint))
            .map(|(endpoint, expected)| {
                let is_resting = self.resting.contains_key(&endpoint);
                let kept = self.askers.remove(&endpoint);
                let asker = kept.or_else(|| Some(Asker::new(endpoint.clone()))).filter(|_| !is_resting);
                Target { endpoint, expected, asker, reads: false }
            })
            .collect();
        // Who is not in the list any more is not kept.
        self.askers.clear();
        self.choose_reader(&mut targets);
        targets
    }

    /// Where a member is asked: where it was given, if it has answered there, else where its clients are told to.
    fn endpoint(&self, member: &Member) -> Option<String> {
        let given = self.seeds.iter().find(|(_, id)| **id == member.id).map(|(endpoint, _)| endpoint);
        given.or_else(|| member.client_urls.first()).cloned()
    }

    /// Reads go through this node's member, else through the first.
    fn choose_reader(&self, targets: &mut [Target]) {
        let local = self.seeds.iter().find(|(endpoint, _)| is_loopback(endpoint)).map(|(_, id)| *id);
        let at = targets.iter().position(|target| {
            target.asker.is_some()
                && (is_loopback(&target.endpoint) || (local.is_some() && target.expected == local))
        });
        let at = at.or_else(|| targets.iter().position(|target| target.asker.is_some()));
        if let Some(target) = at.and_then(|at| targets.get_mut(at)) {
            target.reads = true;
        }
    }

    /// One round out of what everybody said.
    fn gather(&mut self, outcomes: Vec<Outcome>, page: Result<Page, &'static str>, found: &Found) -> Round {
        let mut round = Round {
            now: self.begun.elapsed(),
            time: Timestamp::now(),
            page,
            health: None,
            expects_page: self.config.metrics_url.is_some()
                || found.endpoints.iter().any(|endpoint| is_loopback(endpoint)),
            answers: BTreeMap::new(),
            strangers: self.unreadable.iter().cloned().collect(),
            reads: BTreeMap::new(),
            is_client: self.is_client(found),
            election_timeout: found.election_timeout,
        };
        let mut spoken = BTreeSet::new();
        for Outcome { target, mut answer, reads } in outcomes {
            let rested = self.resting.get(&target.endpoint).map(|(_, error)| error.clone());
            if let (None, Some(error)) = (&target.asker, rested) {
                answer = Answer { status: Err(error.clone()), list: Err(error) };
            }
            self.note(&target, &answer);
            spoken.insert(target.endpoint.clone());
            round.reads.extend(reads);
            match (target.expected, &answer.status) {
                (None, Ok(status)) => {
                    self.seeds.insert(target.endpoint.clone(), status.member);
                    round.answers.insert(status.member, answer);
                }
                (None, Err(error)) => {
                    // Who is in no list and has ended is not asked for ever.
                    if !matches!(error.cause, Cause::Late(_)) {
                        self.seeds.remove(&target.endpoint);
                    }
                    round.strangers.push(error.clone());
                }
                (Some(expected), Ok(status)) if status.member != expected => {
                    self.seeds.remove(&target.endpoint);
                    let other = AskError { endpoint: target.endpoint.clone(), cause: Cause::OtherMember };
                    round.answers.insert(expected, Answer { status: Err(other.clone()), list: Err(other) });
                }
                (Some(expected), _) => {
                    round.answers.insert(expected, answer);
                }
            }
            if let Some(asker) = target.asker {
                self.askers.insert(target.endpoint, asker);
            }
        }
        self.has_answered = round.answers.values().any(|answer| answer.status.is_ok());
        self.told.retain(|endpoint, _| spoken.contains(endpoint));
        round
    }

    /// Whether members can be asked, or should be.
    fn is_client(&self, found: &Found) -> bool {
        self.material.is_some()
            || self.unreadable.is_some()
            || found.endpoints.iter().any(|endpoint| endpoint.starts_with("http://"))
    }

    /// Lets an endpoint rest where asking again is no use, and tells the log what is new of it.
    fn note(&mut self, target: &Target, answer: &Answer) {
        match &answer.status {
            Ok(_) => self.tell(&target.endpoint, "answers", None),
            Err(error) => {
                if error.cause.is_lasting() && target.asker.is_some() {
                    self.resting.insert(target.endpoint.clone(), (Instant::now() + RARELY, error.clone()));
                }
                self.tell(&target.endpoint, error.cause.as_str(), Some(&error.cause));
            }
        }
    }

    fn tell(&mut self, endpoint: &str, what: &'static str, cause: Option<&Cause>) {
        if self.told.insert(endpoint.to_owned(), what) == Some(what) {
            return;
        }
        if let Some(cause) = cause {
            let cause = with_causes(cause);
            tracing::warn!(collector = "etcd", endpoint, reason = what, cause, "etcd does not answer");
        } else {
            tracing::info!(collector = "etcd", endpoint, state = what, "etcd is watched");
        }
    }
}

async fn ask(mut target: Target, material: Option<&Material>, patience: Duration) -> Outcome {
    let endpoint = target.endpoint.clone();
    let Some(asker) = &mut target.asker else {
        // What it said last takes the place of this.
        let error = AskError { endpoint, cause: Cause::Refused };
        return Outcome {
            target,
            answer: Answer { status: Err(error.clone()), list: Err(error) },
            reads: BTreeMap::new(),
        };
    };
    let answer = asker.ask(material, patience).await;
    let reads = match (target.reads, &answer.status) {
        (false, _) => BTreeMap::new(),
        (true, Ok(_)) => Box::pin(asker.read(material, patience)).await,
        // Who does not say who it is does not read either.
        (true, Err(error)) => {
            Consistency::ALL.map(|consistency| (consistency, Read { outcome: Err(error.clone()) })).into()
        }
    };
    Outcome { target, answer, reads }
}

/// A page that has a word of etcd.
fn of_etcd(page: Page) -> Result<Page, &'static str> {
    if page.member.is_some() { Ok(page) } else { Err(FOREIGN_PAGE) }
}

fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    ["127.", "localhost:", "[::1]:"].iter().any(|local| host.starts_with(local))
}
