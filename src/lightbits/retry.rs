//! When and how long to wait before asking again: bounded by tries and by one deadline, jittered,
//! and ended early when the user asks to stop.
//!
//! Not covered: which answers are worth another try (`http.rs`) and what must be looked up before a
//! write is repeated (`snapshots.rs`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The longest a server may make this client wait in one go.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// How quickly a sleeping client notices the stop flag.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// How long calls may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To reach an endpoint, TLS handshake included.
    pub connect: Duration,
    /// For one try of a call, to the last byte of its answer.
    pub call: Duration,
    /// For one try of a diff page, which the array has to compute.
    pub diff: Duration,
    /// For one call with all its tries and pauses.
    pub total: Duration,
    /// As `total`, for calls begun after the stop flag was set (clean-up).
    pub closing: Duration,
    /// How many times shorter pauses between tries are than they should be, those that a server asks
    /// for included: 1, but in the self-test, which has thousands of them to sit out.
    pub hurry: u32,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(20),
            diff: Duration::from_secs(90),
            total: Duration::from_secs(120),
            closing: Duration::from_secs(4),
            hurry: 1,
        }
    }
}

/// The bounds of one call with all its tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Tries at most.
    pub tries: u32,
    /// First pause, doubled each time.
    pub pause_first: Duration,
    /// No own pause is longer.
    pub pause_max: Duration,
}

impl Limits {
    /// For whatever may be asked again freely: two hiccups cost less than 100 ms, a fail-over of
    /// some ten seconds is survived.
    pub(super) const READ: Limits = Limits {
        tries: 10,
        pause_first: Duration::from_millis(20),
        pause_max: Duration::from_secs(4),
    };
    /// For snapshot create and delete, which collide with each other for seconds
    /// (`lightbits-api.md` section 9, rule 9).
    pub(super) const WRITE: Limits = Limits {
        tries: 12,
        pause_first: Duration::from_millis(30),
        pause_max: Duration::from_secs(8),
    };
}

/// The user asked to stop while this call was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopped;

/// One call's time: its deadline and the stop flag.
///
/// A stop ends the calls it finds under way. A call *begun* after the stop is clean-up: it is not
/// stopped again, but has only a short deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget<'a> {
    deadline: Instant,
    stop: Option<&'a AtomicBool>,
    hurry: u32,
}

impl<'a> Budget<'a> {
    pub(super) fn start(timeouts: &Timeouts, stop: &'a AtomicBool) -> Budget<'a> {
        let closing = stop.load(Ordering::Relaxed);
        let limit = if closing { timeouts.closing } else { timeouts.total };
        let (deadline, hurry) = (Instant::now() + limit, timeouts.hurry.max(1));
        Budget { deadline, stop: (!closing).then_some(stop), hurry }
    }

    /// What is left; zero when the deadline has passed.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether the user asked to stop since this call began.
    pub(super) fn stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Sleeps, unless that would pass the deadline: then it answers `false` at once.
    pub(super) fn pause(&self, pause: Duration) -> Result<bool, Stopped> {
        let end = Instant::now() + pause / self.hurry;
        if end >= self.deadline {
            return if self.stopped() { Err(Stopped) } else { Ok(false) };
        }
        loop {
            if self.stopped() {
                return Err(Stopped);
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(true);
            }
            std::thread::sleep(rest.min(STOP_CHECK));
        }
    }
}

/// Counts the tries of one call and says when the next may start.
#[derive(Debug)]
pub(super) struct Tries {
    limits: Limits,
    done: u32,
}

impl Tries {
    pub(super) fn new(limits: Limits) -> Tries {
        Tries { limits, done: 0 }
    }

    /// Notes that a try begins.
    pub(super) fn begin(&mut self) {
        self.done += 1;
    }

    /// Tries begun so far.
    pub(super) fn done(&self) -> u32 {
        self.done
    }

    /// Waits before the next try; `false` when there may be none, because the tries or the time
    /// are used up. `asked` is the server's Retry-After.
    pub(super) fn next(
        &self,
        budget: &Budget<'_>,
        asked: Option<Duration>,
    ) -> Result<bool, Stopped> {
        if self.done >= self.limits.tries {
            return if budget.stopped() { Err(Stopped) } else { Ok(false) };
        }
        let own = backoff(self.limits, self.done, random());
        budget.pause(asked.map_or(own, |asked| asked.max(own)))
    }
}

/// The pause after `done` tries: doubled each time, bounded, and between half and the whole of
/// that by `random`, so that many clients do not return together.
fn backoff(limits: Limits, done: u32, random: u32) -> Duration {
    let doubled = limits.pause_first.saturating_mul(1 << done.saturating_sub(1).min(20));
    let half = doubled.min(limits.pause_max) / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    let share = u128::from(nanos) * u128::from(random) / u128::from(u32::MAX);
    half + Duration::from_nanos(u64::try_from(share).unwrap_or(nanos))
}

/// 32 random bits; where the system has none, no jitter is no harm.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

/// Reads a Retry-After header: seconds or an HTTP date (RFC 9110 section 10.2.3), at most
/// [`RETRY_AFTER_MAX`]. `None` if it is neither; a date in the past is no wait.
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit()) {
        // More digits than fit are an absurdly long wait, which is capped like any other.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default().min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn retry_after_reads_seconds_and_dates_and_caps_what_is_absurd() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let read = |text| parse_retry_after(text, now).map(|wait| wait.as_secs());
        for (text, seconds) in [
            ("0", Some(0)),
            (" 2 ", Some(2)),
            ("1000000000", Some(60)),
            ("99999999999999999999999999", Some(60)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(60)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(read(text), seconds, "{text:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_maximum_and_jitter_takes_at_most_half() {
        let whole = |done| backoff(Limits::READ, done, u32::MAX).as_millis();
        assert_eq!([whole(1), whole(2), whole(3)], [20, 40, 80]);
        assert_eq!([whole(9), whole(40), whole(u32::MAX)], [4000; 3]);
        assert_eq!(backoff(Limits::READ, 1, 0).as_millis(), 10);
        let jittered = backoff(Limits::READ, 1, u32::MAX / 2).as_micros();
        assert!((14_900..=15_000).contains(&jittered), "{jittered}");
    }

    #[test]
    fn a_stop_ends_a_sleep_early_but_not_the_clean_up_begun_after_it() {
        let timeouts = Timeouts { closing: Duration::from_millis(200), ..Timeouts::default() };
        let stop = AtomicBool::new(false);
        let running = Budget::start(&timeouts, &stop);
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                stop.store(true, Ordering::Relaxed);
            });
            assert_eq!(running.pause(Duration::from_secs(30)), Err(Stopped));
        });
        assert!(start.elapsed() < Duration::from_secs(10));
        let closing = Budget::start(&timeouts, &stop);
        assert!(!closing.stopped());
        assert_eq!(closing.pause(Duration::from_millis(1)), Ok(true));
        assert_eq!(closing.pause(Duration::from_secs(1)), Ok(false), "past the short deadline");
    }

    #[test]
    fn a_client_in_a_hurry_sits_out_a_fraction_of_every_pause() {
        let stop = AtomicBool::new(false);
        let total = Duration::from_secs(5);
        let budget = Budget::start(&Timeouts { hurry: 1000, total, ..Timeouts::default() }, &stop);
        let start = Instant::now();
        assert_eq!(budget.pause(RETRY_AFTER_MAX), Ok(true), "it fits into the deadline");
        assert!((60..4000).contains(&start.elapsed().as_millis()));
        assert_eq!(Timeouts::default().hurry, 1);
    }

    #[test]
    fn the_tries_are_bounded_and_the_server_may_ask_for_longer_pauses() {
        let stop = AtomicBool::new(false);
        let timeouts = Timeouts { total: Duration::from_secs(5), ..Timeouts::default() };
        let budget = Budget::start(&timeouts, &stop);
        let limits = Limits { tries: 2, ..Limits::READ };
        let mut tries = Tries::new(limits);
        tries.begin();
        assert_eq!(tries.next(&budget, None), Ok(true));
        assert_eq!(tries.next(&budget, Some(RETRY_AFTER_MAX)), Ok(false), "past the deadline");
        tries.begin();
        assert_eq!(tries.next(&budget, None), Ok(false));
        assert_eq!(tries.done(), 2);
    }
}
