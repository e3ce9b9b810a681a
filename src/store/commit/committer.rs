//! A committer: dequeues batches, one at a time, attempts each as often as necessary, and decides
//! what comes after each attempt.

use std::{
    convert::Infallible,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::Mutex, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use super::{
    attempt::{self, Attempt, Effort, Lost, attempt},
    commit_outcome::{self, CommitOutcome},
    committed_batch::CommittedBatches,
    import_halves::{self, Halves},
    planner::{CommittedWrites, Pending},
    queue::Queue,
    session::{WriterSession, WriterSessions},
    write::{Action, Write},
    writer::pending,
};
use crate::store::{
    change_log::{head::HeadHint, log::Position},
    database::{Availability, Throttle},
    error::WriteError,
    maintenance::upkeep::Upkeep,
};

/// How often a committer checks whether the database has become unavailable.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a committer without a session leaves commits to the others.
const REST: Duration = Duration::from_millis(500);

/// One committer: a task of the store's, which ends when the queue is closed and
/// empty.
pub(crate) struct Committer {
    /// The commit permit: the committer that holds the queue commits.
    pub(crate) permit: Arc<Mutex<Queue>>,
    /// Which committers have a session, and which of them this is.
    pub(crate) ready: Arc<[AtomicBool]>,
    pub(crate) place: usize,
    pub(crate) sessions: WriterSessions,
    pub(crate) upkeep: Upkeep,
    pub(crate) availability: Availability,
    pub(crate) head: HeadHint,
    /// Where committed batches go besides their callers.
    pub(crate) committed: CommittedBatches,
    /// Owns the committer, and what it starts.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the database is there for the first time.
    pub(crate) opened: CancellationToken,
    /// For the log lines about batches, and about single writes, that the database refuses.
    pub(crate) refusals: Throttle,
    pub(crate) poison: Throttle,
    /// Kept from batch to batch, unless it breaks.
    pub(crate) session: Option<WriterSession>,
}

/// The outcome of a group of writes.
enum GroupOutcome {
    /// It is committed; the callers wait for their responses.
    Committed(CommittedWrites),
    /// All callers have their responses.
    Answered,
    /// The database refuses one of these.
    Poisoned(Vec<Pending>),
}

impl Committer {
    pub(crate) async fn run(mut self) {
        let permit = Arc::clone(&self.permit);
        // Its connection is made before others have taken the last one.
        self.opened.cancelled().await;
        loop {
            // A committer without a connection must not dequeue what another one can commit.
            while !self.is_ready().await && self.others_are_ready() {
                sleep(REST).await;
            }
            let mut queue = permit.lock().await;
            if self.session.is_none() && self.others_are_ready() {
                continue;
            }
            let taken = queue.take().await;
            if taken.is_empty() {
                self.tell_ready(false);
                return;
            }
            let mut groups = vec![taken];
            let mut committed = Vec::new();
            while let Some(group) = groups.pop() {
                match self.write(group, &mut queue).await {
                    GroupOutcome::Committed(writes) => committed.push(writes),
                    GroupOutcome::Answered => {}
                    GroupOutcome::Poisoned(group) => groups.extend(self.halve(group)),
                }
            }
            self.tell_ready(self.session.is_some());
            drop(queue);
            for writes in committed {
                self.answer(writes);
            }
        }
    }

    /// Opens a session ahead, while the database is available; returns whether there is one.
    async fn is_ready(&mut self) -> bool {
        if self.session.is_none() && self.availability.is_up() {
            let comes_first = !self.others_are_ready();
            self.session = self.session(comes_first).await.ok();
        }
        self.tell_ready(self.session.is_some());
        self.session.is_some()
    }

    fn tell_ready(&self, is_ready: bool) {
        self.ready[self.place].store(is_ready, Ordering::Relaxed);
    }

    fn others_are_ready(&self) -> bool {
        let ready = self.ready.iter().enumerate();
        ready
            .filter(|(place, _)| *place != self.place)
            .any(|(_, ready)| ready.load(Ordering::Relaxed))
    }

    /// Responds to the callers of a batch, by one task on each of their threads: a thread wakes
    /// once, not once for each of its callers, and their responses leave together.
    fn answer(&self, writes: CommittedWrites) {
        let mut threads: Vec<(Handle, Vec<_>)> = Vec::new();
        for (pending, result) in writes.answers() {
            let thread = pending.caller.id();
            let place = threads.iter().position(|(caller, _)| caller.id() == thread);
            let place = place.unwrap_or_else(|| {
                threads.push((pending.caller.clone(), Vec::new()));
                threads.len() - 1
            });
            threads[place].1.push((pending, result));
        }
        for (thread, answers) in threads {
            let answer = async move {
                for (pending, result) in answers {
                    pending.answer(result);
                }
            };
            self.tasks.spawn_on(answer, &thread);
        }
    }

    /// Writes a group, in as many attempts as necessary.
    async fn write(&mut self, mut group: Vec<Pending>, queue: &mut Queue) -> GroupOutcome {
        let mut effort = Effort::new();
        loop {
            let mut session = match self.session(true).await {
                Ok(session) => session,
                Err(error) => {
                    answer_all(group, &error);
                    return GroupOutcome::Answered;
                }
            };
            session.learn(queue.last_commit.as_ref());
            let outcome = attempt(&mut session, group, &effort, &mut queue.postponed).await;
            if let Ok(Attempt::Committed { .. }) = &outcome {
                queue.last_commit = Some((session.backend.timeline.clone(), session.known));
            }
            let outcome = match outcome {
                Ok(outcome) => {
                    self.keep(session, &outcome);
                    outcome
                }
                Err(lost) => {
                    self.sessions.give_up(session.backend);
                    // Its socket is closed before anything else is tried.
                    drop(session.session);
                    self.availability.suspect();
                    self.after_loss(lost, queue).await
                }
            };
            if let Attempt::Passing(_, sqlstate) = &outcome
                && attempt::may_be_of_a_write(sqlstate)
                && self.commits(queue).await
                && let Attempt::Passing(group, sqlstate) = outcome
            {
                return self.suspected(group, &sqlstate);
            }
            match self.after(outcome, &mut effort).await {
                ControlFlow::Break(written) => return written,
                ControlFlow::Continue(again) => group = again,
            }
        }
    }

    /// The outcome of the group, or the writes that are to be attempted again.
    async fn after(
        &self,
        outcome: Attempt,
        effort: &mut Effort,
    ) -> ControlFlow<GroupOutcome, Vec<Pending>> {
        match outcome {
            Attempt::Committed {
                writes,
                before,
                stamp,
            } => {
                self.publish(&writes, before, stamp);
                ControlFlow::Break(GroupOutcome::Committed(writes))
            }
            Attempt::Done => ControlFlow::Break(GroupOutcome::Answered),
            Attempt::Stale(again) => {
                effort.stale += 1;
                let may_help = effort.stale <= Effort::MAX_STALE;
                if !may_help {
                    error!("a batch is still stale although it was planned under the commit lock");
                }
                again_if(may_help, again)
            }
            Attempt::Lost(again) => {
                effort.lost += 1;
                again_if(effort.lost <= Effort::MAX_LOST, again)
            }
            Attempt::RefusedBefore(again, reason) => {
                effort.refused_before += 1;
                self.log_refusal(&reason, "the database refused to read what a batch needs");
                let may_help = effort.refused_before <= Effort::MAX_REFUSED_BEFORE
                    && effort.started_at.elapsed() < Effort::MAX_TIME_BEFORE;
                again_if(may_help, again)
            }
            Attempt::LacksPartition(again) => {
                effort.no_partition += 1;
                let may_help = effort.no_partition <= Effort::MAX_NO_PARTITION;
                again_if(self.make_partitions().await && may_help, again)
            }
            Attempt::Refused(again, reason) => {
                effort.refused += 1;
                self.log_refusal(&reason, "the database refused a batch; retrying");
                if effort.refused > Effort::MAX_REFUSED {
                    return ControlFlow::Break(self.poisoned(again, &reason));
                }
                ControlFlow::Continue(again)
            }
            Attempt::Passing(group, sqlstate) => {
                if let Some(kept_back) = self.refusals.may_say(&sqlstate) {
                    let meaning = attempt::meaning(&sqlstate);
                    warn!(
                        sqlstate,
                        kept_back, "the database cannot commit a batch now: {meaning}"
                    );
                }
                again_if(false, group)
            }
            Attempt::Poisoned(group, sqlstate) => {
                ControlFlow::Break(self.poisoned(group, &sqlstate))
            }
        }
    }

    async fn make_partitions(&self) -> bool {
        let made = self.upkeep.make_partitions().await;
        if let Err(reason) = &made {
            warn!(reason, "cannot create partitions for a batch");
        }
        made.is_ok()
    }

    fn log_refusal(&self, reason: &str, what: &str) {
        if let Some(kept_back) = self.refusals.may_say(reason) {
            warn!(reason, kept_back, "{what}");
        }
    }

    /// Whether the database commits a batch without changes now.
    async fn commits(&mut self, queue: &mut Queue) -> bool {
        let Ok(mut session) = self.session(true).await else {
            return false;
        };
        session.learn(queue.last_commit.as_ref());
        let (nothing, _) = pending(Write::confirm_time());
        let effort = Effort::new();
        match attempt(&mut session, vec![nothing], &effort, &mut queue.postponed).await {
            Ok(outcome) => {
                self.keep(session, &outcome);
                matches!(outcome, Attempt::Committed { .. })
            }
            // Whether it was committed makes no difference.
            Err(_) => {
                self.sessions.give_up(session.backend);
                drop(session.session);
                self.availability.suspect();
                false
            }
        }
    }

    /// Writes that the database refuses for a reason that should pass, although it commits
    /// others: one of them is at fault.
    fn suspected(&self, group: Vec<Pending>, sqlstate: &str) -> GroupOutcome {
        let is_import = |pending: &Pending| matches!(pending.write.action, Action::Import(..));
        if can_be_halved(&group) || group.iter().any(is_import) || attempt::is_for_good(sqlstate) {
            return self.poisoned(group, sqlstate);
        }
        answer_all(group, &WriteError::Unavailable);
        GroupOutcome::Answered
    }

    /// Handles writes one of which the database refuses: a write that stands alone gets its
    /// response.
    fn poisoned(&self, mut group: Vec<Pending>, reason: &str) -> GroupOutcome {
        if can_be_halved(&group) {
            return GroupOutcome::Poisoned(group);
        }
        if let Some(kept_back) = self.poison.may_say(reason) {
            error!(reason, kept_back, "the database refused a write");
        }
        if let Some(pending) = group.pop() {
            let is_import = matches!(pending.write.action, Action::Import(..));
            pending.answer(if is_import {
                Ok(import_halves::refused())
            } else {
                Err(WriteError::Internal)
            });
        }
        GroupOutcome::Answered
    }

    /// The halves of a group, or of the import that stands alone. The last is taken first.
    fn halve(&self, mut group: Vec<Pending>) -> Vec<Vec<Pending>> {
        if group.len() > 1 {
            let second = group.split_off(group.len() / 2);
            return vec![second, group];
        }
        let mut halves = Vec::new();
        for pending in group {
            match Halves::of(pending) {
                Ok(import) => {
                    let ([first, second], join) = import.take_apart();
                    self.tasks.spawn(join);
                    halves.extend([vec![second], vec![first]]);
                }
                Err(pending) => halves.push(vec![*pending]),
            }
        }
        halves
    }

    /// Keeps the session for the next attempt, unless it may be the reason of a refusal.
    fn keep(&mut self, mut session: WriterSession, outcome: &Attempt) {
        let is_good = match outcome {
            Attempt::RefusedBefore(..) | Attempt::Refused(..) => false,
            Attempt::Passing(_, sqlstate) => session.survives_refusal(sqlstate),
            _ => true,
        };
        if is_good {
            self.session = Some(session);
        } else {
            self.sessions.give_up(session.backend);
        }
    }

    /// Publishes a commit to the rest of the process, without waiting.
    fn publish(&self, writes: &CommittedWrites, before: Position, stamp: i64) {
        if let Some(last) = writes.last_revision() {
            self.head.set(last);
            self.upkeep.log_reached(last);
            self.committed.publish(&writes.changes, before, stamp);
        }
    }

    /// Finds out what is left to do after the session was lost.
    async fn after_loss(&mut self, lost: Lost, queue: &mut Queue) -> Attempt {
        let (batch, commit) = match lost {
            Lost::Before(group) => return Attempt::Lost(group),
            Lost::During(batch, commit) => (batch, commit),
        };
        let (outcome, session) = tokio::select! {
            found = commit_outcome::find(&mut self.sessions, &commit) => found,
            never = refuse_meanwhile(queue, &self.availability) => match never {},
        };
        self.session = session;
        match outcome {
            CommitOutcome::Committed {
                head_before,
                committed_at,
            } => {
                let writes = batch.commit(head_before, committed_at);
                self.head.set(writes.last_revision().unwrap_or(head_before));
                // The follower finds it in the log: what was before it is not known.
                self.answer(writes);
                Attempt::Done
            }
            CommitOutcome::NotCommitted => Attempt::Lost(batch.into_pending()),
            CommitOutcome::Unknown => {
                error!("cannot find out whether a batch was committed");
                answer_all(batch.into_pending(), &WriteError::OutcomeUnknown);
                Attempt::Done
            }
        }
    }

    /// A session; `comes_first` as [`WriterSessions::open`] has it.
    async fn session(&mut self, comes_first: bool) -> Result<WriterSession, WriteError> {
        match self.session.take() {
            Some(session) if session.session.is_lost() => self.sessions.give_up(session.backend),
            Some(session) => return Ok(session),
            None => {}
        }
        let session = self.sessions.open(comes_first).await;
        session.map_err(|error| self.availability.no_session("writes", error).into())
    }
}

/// Refuses what is queued while the database is unavailable. None of it has been sent, so it
/// need not wait for the outcome of the batch that was.
async fn refuse_meanwhile(queue: &mut Queue, availability: &Availability) -> Infallible {
    loop {
        sleep(LOOK_EVERY).await;
        if !availability.is_up() {
            answer_all(queue.drain(), &WriteError::Unavailable);
        }
    }
}

/// Tries the group again, or responds that the database is unavailable.
fn again_if(is_worth_it: bool, group: Vec<Pending>) -> ControlFlow<GroupOutcome, Vec<Pending>> {
    if is_worth_it {
        return ControlFlow::Continue(group);
    }
    answer_all(group, &WriteError::Unavailable);
    ControlFlow::Break(GroupOutcome::Answered)
}

fn can_be_halved(group: &[Pending]) -> bool {
    match group {
        [alone] => matches!(&alone.write.action, Action::Import(records, _) if records.len() > 1),
        _ => true,
    }
}

fn answer_all(group: Vec<Pending>, error: &WriteError) {
    for pending in group {
        pending.answer(Err(error.clone()));
    }
}
