// SPDX-License-Identifier: AGPL-3.0-only
//! A connection that misbehaves because a test asked for it.
//!
//! In: the hub's commands. Out: wrong bytes, closes, or the connection's end.
use std::time::{Duration, Instant};

use crate::connection::{Connection, End};
use crate::encode::{BINARY, TEXT, frame_header};
use crate::faults::{Cut, Fault, FaultKind};
use crate::hub::Command;

impl Connection {
    /// Carries out what the hub asks for.
    pub(crate) fn command(&mut self, command: Command) -> Option<End> {
        match command {
            Command::Lasting => {
                self.reload_faults();
                self.hit(FaultKind::Refuse, Instant::now())
                    .then_some(End::Cut(Cut::Rst))
                    .filter(|_| self.session.is_none())
            }
            Command::Close(code, reason) => {
                self.close(code, reason);
                None
            }
            Command::Fault(fault) => self.fault(&fault),
        }
    }

    fn fault(&mut self, fault: &Fault) -> Option<End> {
        match fault.kind {
            FaultKind::Fin => return Some(End::Cut(Cut::Fin)),
            FaultKind::Rst => return Some(End::Cut(Cut::Rst)),
            FaultKind::FinRst => return Some(End::Cut(Cut::FinRst)),
            FaultKind::Op7 => {
                self.send(br#"{"t":null,"s":null,"op":7,"d":null}"#);
                let after = Duration::from_millis(fault.ms.unwrap_or(5_000));
                self.cut_at = Some((Instant::now() + after, Cut::Fin));
            }
            FaultKind::HeartbeatRequest => self.send(br#"{"t":null,"s":null,"op":1,"d":null}"#),
            FaultKind::Op9 => {
                let resumable = fault.resumable.unwrap_or(false);
                if let Some(session) = self.session.take() {
                    if resumable {
                        session.leave(self.id);
                    } else {
                        self.hub.end_session(&session.id);
                    }
                }
                self.invalid_session(resumable);
            }
            FaultKind::Close => {
                if let (Some(false), Some(session)) = (fault.resumable, &self.session) {
                    session.forbid_resume();
                }
                self.close(fault.code.unwrap_or(4000), "Unknown error");
            }
            FaultKind::Garbage => self.garbage(fault.code.unwrap_or(0)),
            FaultKind::Truncate => {
                frame_header(&mut self.out, TEXT, 1_000);
                self.out.extend_from_slice(br#"{"t":"MESSAGE_CREATE","s":1,"op":0,"d":{"#);
                self.cut_at = Some((Instant::now(), Cut::Fin));
            }
            FaultKind::ExpireSession => {
                if let Some(session) = &self.session {
                    session.forbid_resume();
                }
            }
            // These last: they are in the table.
            FaultKind::Silence
            | FaultKind::NoAck
            | FaultKind::LateAck
            | FaultKind::SlowRead
            | FaultKind::Refuse
            | FaultKind::HoldReady => {}
        }
        self.flush();
        None
    }

    fn garbage(&mut self, variant: u16) {
        let (opcode, bytes): (Option<u8>, &[u8]) = match variant {
            1 => (None, b"\xff\xff\xff\xffthis is not a frame\x00\x00"),
            2 => (Some(TEXT), b"{\"op\":0,\"t\":\"\xc3\x28\"}"),
            3 => (Some(BINARY), b"\x01\x02\x03\x04nothing that inflates\x00\x00\xff\xff"),
            _ => (Some(TEXT), b"{\"op\":0,\"t\":\"MESSAGE_CREATE\",\"s\":12,\"d\":{\"id\":"),
        };
        if let Some(opcode) = opcode {
            frame_header(&mut self.out, opcode, bytes.len());
        }
        self.out.extend_from_slice(bytes);
    }
}
