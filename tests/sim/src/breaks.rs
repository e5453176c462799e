//! Rules taken away one at a time. What is taken away is in the model or at the edge of the step functions (their
//! inputs, the compares of what they return), never in what ships.
//!
//! Must never happen: a break that is caught only because the transaction looks wrong. What counts is what comes of it.

use std::collections::BTreeSet;

macro_rules! breaks {
    ($($name:ident = $word:literal, $what:literal;)*) => {
        /// A rule that is taken away.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Break { $($name,)* }

        impl Break {
            pub const ALL: &'static [Break] = &[$(Break::$name,)*];

            pub const fn word(self) -> &'static str {
                match self { $(Break::$name => $word,)* }
            }

            pub const fn what(self) -> &'static str {
                match self { $(Break::$name => $what,)* }
            }
        }
    };
}

breaks! {
    NoGuard = "no-guard", "nothing stops QEMU at the deadline";
    DeadlineFromAnswer = "deadline-from-answer", "the deadline is counted from the answer of a beat";
    FenceWithoutBeatGuard = "fence-without-beat-guard", "a fence does not compare the beat that was seen";
    FenceWithoutQuorum = "fence-without-quorum", "a leader fences without a majority that has just confirmed it";
    FenceAfterGap = "fence-after-gap", "a fence right after commits come again";
    NotesEarly = "notes-early", "a new leader takes the notes of another member's clock";
    ThawWithoutRead = "thaw-without-read", "a thaw on the deadline alone";
    ThawReadBeforeReopen = "thaw-read-before-reopen", "the read of a thaw is older than the session";
    ThawOrderWithoutEpoch = "thaw-order-without-epoch", "the guard does not ask of which session an order to thaw is";
    ClaimWithoutSession = "claim-without-session", "a claim does not compare the session";
    ClaimWithoutStatus = "claim-without-status", "a claim does not compare the status that was read";
    ClaimWithoutAttempt = "claim-without-attempt", "machines of other attempts count as the one that is claimed";
    OpenWithoutEpoch = "open-without-epoch", "opening a session does not compare the one that was read";
    LateAnswerExtends = "late-answer-extends", "an answer that comes too late extends the deadline all the same";
    BeatRetried = "beat-retried", "a layer below sends a beat again, and calls it well if it was stored before";
    LeaseWithdrawn = "lease-withdrawn", "switching HA off takes the lease of a machine that runs";
    IncarnationNotRaised = "incarnation-not-raised", "a failover keeps the incarnation";
    SecondInstanceEarly = "second-instance-early", "another instance opens a session that was not fenced";
    PowerOffMeansGone = "power-off-means-gone", "a guest that has powered off counts as gone";
    MissingRecordAsProof = "missing-record-as-proof", "a machine is killed because nothing is stored of it";
    GuardThawsByItself = "guard-thaws-by-itself", "a deadline that is ahead again lets go what was frozen";
    NoBarrierAtStart = "no-barrier-at-start", "a server decides on the view it had when it died";
    NoAnswerTimeout = "no-answer-timeout", "answers of beats are waited for without end";
    NoSessionRevision = "beat-without-session", "a beat does not compare the session";
    NoGapRule = "no-gap-rule", "silence counts at once after a gap";
    StrangerAfterFence = "stranger-after-fence", "another instance opens after a fence though what is not leased may run";
    SessionNotMatched = "session-not-matched", "the session that is held counts though the view does not show it yet";
    OpenWithoutOrder = "open-without-order", "the beat that opens a session may be older than the stored one";
    ReplayCounts = "replay-counts", "what a member replays when it starts counts as heard";
    TodaysTimingsJudge = "todays-timings-judge", "a leader judges hosts by the timings of today alone, whatever their beats say";
    ShorterAtOnce = "shorter-at-once", "a beat says its own terms alone, though one before granted more";
    NoQmpStop = "no-qmp-stop", "guests are not asked to hold still before the deadline";
}

impl Break {
    pub fn named(word: &str) -> Option<Break> {
        Break::ALL.iter().copied().find(|it| it.word() == word)
    }

    /// The rules that mask this one, switched off with it.
    pub const fn with(self) -> &'static [Break] {
        match self {
            Break::DeadlineFromAnswer => &[Break::NoAnswerTimeout],
            Break::FenceWithoutQuorum => &[Break::NoGapRule],
            Break::ThawWithoutRead | Break::ThawReadBeforeReopen => &[Break::SessionNotMatched],
            Break::OpenWithoutEpoch => &[Break::OpenWithoutOrder],
            Break::MissingRecordAsProof => &[Break::NoBarrierAtStart],
            _ => &[],
        }
    }

    /// Those that are there only to be switched off with others.
    pub const fn is_helper(self) -> bool {
        matches!(
            self,
            Break::NoBarrierAtStart
                | Break::NoAnswerTimeout
                | Break::NoGapRule
                | Break::NoQmpStop
                | Break::SessionNotMatched
                | Break::NoSessionRevision
                | Break::OpenWithoutOrder
        )
    }
}

/// What is taken away in one life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaks(BTreeSet<Break>);

impl Breaks {
    pub fn of(one: Break) -> Self {
        Self(one.with().iter().copied().chain([one]).collect())
    }

    pub fn has(&self, one: Break) -> bool {
        self.0.contains(&one)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
