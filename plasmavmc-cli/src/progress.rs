//! Waiting for an operation, and showing what it does meanwhile.
//!
//! The operation belongs to the cluster: that this command stops waiting, loses its server or is interrupted changes
//! nothing about it, and says so.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plasmavmc_proto::api::{GetOperationRequest, Operation, operation::State};

use crate::args::Form;
use crate::context::Context;
use crate::failure::Failure;
use crate::reach::may_go_on;
use crate::show::Screen;

/// Longer than the cluster gives it: then something is wrong with the clock or the cluster.
const GRACE: Duration = Duration::from_secs(30);
/// Of an operation that has no deadline.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long to look for a server that knows how it goes on.
const RECONNECT_WITHIN: Duration = Duration::from_secs(60);
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

pub fn has_ended(operation: &Operation) -> bool {
    matches!(operation.state(), State::Done | State::Failed | State::Cancelled)
}

/// Waits until the operation is done. Any other end is a failure.
pub async fn to_end(context: &Context, operation: Operation) -> Result<Operation, Failure> {
    let begun = Instant::now();
    let limit = context.timeout.unwrap_or_else(|| limit_of(&operation));
    let mut last = operation;
    let outcome = {
        let mut line = StepLine::new(&context.screen);
        tokio::select! {
            outcome = tokio::time::timeout(limit, watch(context, &mut last, &mut line)) => outcome.ok(),
            _ = tokio::signal::ctrl_c() => Some(Err(Failure::Interrupted { operation: None })),
        }
    };
    match outcome {
        None => Err(Failure::StillRunning {
            operation: Box::new(last),
            waited: begun.elapsed(),
        }),
        Some(Err(Failure::Interrupted { .. })) => Err(Failure::Interrupted {
            operation: Some(Box::new(last)),
        }),
        Some(Err(failure)) => Err(failure),
        Some(Ok(())) if last.state() == State::Done => Ok(last),
        Some(Ok(())) => Err(Failure::Operation {
            operation: Box::new(last),
        }),
    }
}

/// The deadline is a time of another machine's clock; how long there is until then is not.
fn limit_of(operation: &Operation) -> Duration {
    match operation.deadline_ms.checked_sub(operation.created_at_ms) {
        Some(ms) if operation.deadline_ms > 0 => Duration::from_millis(ms).saturating_add(GRACE),
        _ => LONGEST,
    }
}

/// Follows the operation from server to server.
async fn watch(context: &Context, last: &mut Operation, line: &mut StepLine) -> Result<(), Failure> {
    let doing = format!("wait for {} {}", last.kind, last.vm_name);
    let mut heard = Instant::now();
    loop {
        line.show(last);
        if has_ended(last) {
            return Ok(());
        }
        let request = GetOperationRequest { id: last.id.clone() };
        match context.reach.follow(&doing, request).await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(operation)) => {
                        heard = Instant::now();
                        *last = operation;
                        line.show(last);
                        if has_ended(last) {
                            return Ok(());
                        }
                    }
                    Ok(None) => break,
                    Err(status) if may_go_on(&status) => break,
                    Err(status) => {
                        return Err(Failure::BrokeOff {
                            doing,
                            why: status.message().to_owned(),
                        });
                    }
                }
            },
            // The one server of a small cluster may be starting again.
            Err(Failure::Nobody { .. }) if heard.elapsed() < RECONNECT_WITHIN => {}
            Err(failure) => return Err(failure),
        }
        if heard.elapsed() >= RECONNECT_WITHIN {
            let why = format!("nothing was heard for {} s", RECONNECT_WITHIN.as_secs());
            return Err(Failure::BrokeOff { doing, why });
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// On a terminal a line that changes; else a line for every step.
pub struct StepLine {
    spinner: Option<ProgressBar>,
    speaks: bool,
    shown: String,
}

impl StepLine {
    pub fn new(screen: &Screen) -> Self {
        let speaks = !screen.quiet && screen.form == Form::Table;
        let spinner = (speaks && screen.is_live).then(|| {
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // A template that is wrong would only look plainer.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        Self {
            spinner,
            speaks,
            shown: String::new(),
        }
    }

    fn show(&mut self, operation: &Operation) {
        // How it ended is told by who waited.
        if self.spinner.is_some() || !has_ended(operation) {
            self.say(step_text(operation));
        }
    }

    /// Says it, unless it was said already.
    pub fn say(&mut self, text: String) {
        if !self.speaks || text == self.shown {
            return;
        }
        match &self.spinner {
            Some(spinner) => spinner.set_message(text.clone()),
            None => {
                let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
            }
        }
        self.shown = text;
    }
}

impl Drop for StepLine {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn step_text(operation: &Operation) -> String {
    let step = match (operation.step.as_str(), operation.state()) {
        ("", State::Pending) => "waiting for a host to take it",
        ("", _) => "under way",
        (step, _) => step,
    };
    let cancel = if operation.cancel_requested {
        " (to be cancelled)"
    } else {
        ""
    };
    let step: String = step.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{} {}: {step}{cancel}", operation.kind, operation.vm_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_waited_for_as_long_as_the_cluster_gives_it() {
        let operation = |created_at_ms, deadline_ms| Operation {
            created_at_ms,
            deadline_ms,
            ..Operation::default()
        };
        assert_eq!(limit_of(&operation(1_000, 121_000)), Duration::from_secs(150));
        assert_eq!(limit_of(&operation(1_000, 0)), LONGEST);
        assert_eq!(limit_of(&operation(0, 0)), LONGEST);
    }

    #[test]
    fn a_step_is_told_in_one_line() {
        let operation = Operation {
            kind: "stop".to_owned(),
            vm_name: "web".to_owned(),
            step: "asking\nthe agent".to_owned(),
            ..Operation::default()
        };
        assert_eq!(step_text(&operation), "stop web: asking the agent");
    }
}
