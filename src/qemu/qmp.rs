//! A client of QMP, the control protocol of QEMU: one JSON object a line, over a unix socket.
//!
//! Contract: `docs/interop/qmp-spec.rst` of QEMU. It sends one command at a time and keeps the
//! events that arrive in between. Not covered: what the commands mean, see `super::adapter`.

use super::error::escaped;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

/// Longest line accepted, in bytes; the answers used here stay far below.
const LINE_MAX: u64 = 1 << 20;
/// Events kept while nobody asks for them.
const EVENTS_MAX: usize = 1024;

/// A QMP command that gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed, timed out or was closed.
    #[error("qemu-storage-daemon, {command}: {cause}")]
    Io {
        /// The command.
        command: String,
        /// What went wrong.
        cause: io::Error,
    },
    /// The daemon said no.
    #[error("qemu-storage-daemon refused {command}: {desc} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// Class of the error, escaped.
        class: String,
        /// The daemon's own words, escaped.
        desc: String,
    },
    /// The answer is not QMP.
    #[error("qemu-storage-daemon, {command}: answer cannot be read: {what}")]
    Malformed {
        /// The command.
        command: String,
        /// What is wrong, escaped.
        what: String,
    },
    /// Something announced did not happen.
    #[error("qemu-storage-daemon: {0} did not happen in time")]
    Late(String),
}

/// One line of the daemon.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    id: Option<Value>,
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
}

#[derive(Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

struct Event {
    name: String,
    data: Value,
}

/// An open QMP session. After a failure of the socket every further command fails.
pub(crate) struct Qmp<S> {
    io: BufReader<S>,
    next_id: u64,
    events: VecDeque<Event>,
    broken: bool,
}

impl<S: Read + Write> Qmp<S> {
    /// Reads the greeting and leaves negotiation mode.
    ///
    /// # Errors
    /// When the other side does not speak QMP.
    pub(crate) fn open(stream: S) -> Result<Qmp<S>, QmpError> {
        let io = BufReader::new(stream);
        let mut qmp = Qmp { io, next_id: 1, events: VecDeque::new(), broken: false };
        let first = qmp.message("greeting")?;
        if first.greeting.is_none() {
            return Err(malformed("greeting", "the first line is no QMP greeting"));
        }
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Sends one command and waits for its answer.
    ///
    /// # Errors
    /// [`QmpError::Refused`] when the daemon says no; otherwise the session is unusable.
    pub(crate) fn command(&mut self, name: &str, arguments: &Value) -> Result<Value, QmpError> {
        let id = self.next_id;
        self.next_id += 1;
        let line = format!("{}\n", json!({"execute": name, "arguments": arguments, "id": id}));
        if self.broken {
            let cause = io::Error::new(io::ErrorKind::BrokenPipe, "the session failed before");
            return Err(QmpError::Io { command: name.to_owned(), cause });
        }
        let sent = self.io.get_mut().write_all(line.as_bytes());
        sent.map_err(|cause| self.fail(name, cause))?;
        loop {
            let message = self.message(name)?;
            if let Some(event) = message.event {
                self.keep(event, message.data);
            } else if message.id != Some(json!(id)) {
                self.broken = true;
                return Err(malformed(name, "an answer to something else"));
            } else if let Some(Refusal { class, desc }) = message.error {
                let (class, desc) = (escaped(&class), escaped(&desc));
                return Err(QmpError::Refused { command: name.to_owned(), class, desc });
            } else if let Some(answer) = message.answer {
                return Ok(answer);
            } else {
                self.broken = true;
                return Err(malformed(name, "neither an answer nor an error"));
            }
        }
    }

    /// Forgets the events kept so far. Call before a command whose event is waited for.
    pub(crate) fn forget_events(&mut self) {
        self.events.clear();
    }

    /// Waits for an event `name` whose data holds everything that `fields` holds.
    ///
    /// # Errors
    /// [`QmpError::Late`] after `limit`; a silent socket shows after its own timeout.
    pub(crate) fn wait_event(
        &mut self,
        name: &str,
        fields: &[(&str, &str)],
        limit: Duration,
    ) -> Result<(), QmpError> {
        let wanted = |event: &Event| {
            event.name == name
                && fields.iter().all(|(key, value)| event.data.get(key) == Some(&json!(value)))
        };
        let start = Instant::now();
        loop {
            if self.events.iter().any(wanted) {
                return Ok(());
            }
            if start.elapsed() >= limit {
                return Err(QmpError::Late(format!("event {name}")));
            }
            let message = self.message(name)?;
            match message.event {
                Some(event) => self.keep(event, message.data),
                None => return Err(malformed(name, "an answer that nobody asked for")),
            }
        }
    }

    fn keep(&mut self, name: String, data: Value) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event { name, data });
    }

    fn message(&mut self, command: &str) -> Result<Message, QmpError> {
        let mut line = Vec::new();
        let read = (&mut self.io).take(LINE_MAX).read_until(b'\n', &mut line);
        read.map_err(|cause| self.fail(command, cause))?;
        if line.last() != Some(&b'\n') {
            return Err(self.fail(command, io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice(&line).map_err(|cause| {
            self.broken = true;
            malformed(command, &cause.to_string())
        })
    }

    fn fail(&mut self, command: &str, cause: io::Error) -> QmpError {
        self.broken = true;
        QmpError::Io { command: command.to_owned(), cause }
    }
}

fn malformed(command: &str, what: &str) -> QmpError {
    QmpError::Malformed { command: command.to_owned(), what: escaped(what) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testio::Script;

    const HELLO: &str =
        "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n{\"return\": {}, \"id\": 1}\r\n";

    fn session(rest: &str) -> Qmp<Script> {
        Qmp::open(Script::new(format!("{HELLO}{rest}"))).expect("the greeting is well formed")
    }

    #[test]
    fn a_command_is_one_line_and_its_answer_is_found_behind_events() {
        let mut qmp = session(
            "{\"event\": \"STOP\", \"data\": {\"id\": \"x\"}, \"timestamp\": {}}\r\n{\"return\": {\"a\": 7}, \"id\": 2}\r\n",
        );
        let answer = qmp.command("query-it", &json!({"node": "d0"})).expect("answered");
        assert_eq!(answer, json!({"a": 7}));
        let sent = String::from_utf8(qmp.io.get_ref().written.clone()).expect("json is text");
        let lines: Vec<Value> =
            sent.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
        assert_eq!(lines[0], json!({"execute": "qmp_capabilities", "arguments": {}, "id": 1}));
        assert_eq!(lines[1], json!({"execute": "query-it", "arguments": {"node": "d0"}, "id": 2}));
        qmp.wait_event("STOP", &[("id", "x")], Duration::ZERO).expect("the event was kept");
        let other = qmp.wait_event("STOP", &[("id", "y")], Duration::ZERO);
        assert!(matches!(other, Err(QmpError::Late(_))), "{other:?}");
    }

    #[test]
    fn a_refusal_carries_the_words_of_the_daemon_escaped() {
        let mut qmp = session(
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u001b[31m\"}, \"id\": 2}\r\n{\"return\": {}, \"id\": 3}\r\n",
        );
        match qmp.command("quit", &json!({})) {
            Err(QmpError::Refused { command, class, desc }) => {
                assert_eq!((command.as_str(), class.as_str()), ("quit", "GenericError"));
                assert_eq!(desc, "no\\u{1b}[31m");
            }
            other => panic!("{other:?}"),
        }
        assert!(qmp.command("quit", &json!({})).is_ok(), "a refusal leaves the session usable");
    }

    #[test]
    fn malformed_answers_are_errors_and_end_the_session() {
        for bad in [
            "not json\n",
            "{\"return\": {}, \"id\": 9}\n",
            "{\"id\": 2}\n",
            "{\"return\": {}, \"id\": 2}",
            "[]\n",
            "",
        ] {
            let mut qmp = session(bad);
            let answer = qmp.command("quit", &json!({}));
            assert!(
                matches!(answer, Err(QmpError::Malformed { .. } | QmpError::Io { .. })),
                "{bad}: {answer:?}"
            );
            assert!(matches!(qmp.command("quit", &json!({})), Err(QmpError::Io { .. })), "{bad}");
        }
        for bad in ["", "{}\n", "{\"return\": {}}\n"] {
            assert!(Qmp::open(Script::new(bad)).is_err(), "{bad}");
        }
    }
}
