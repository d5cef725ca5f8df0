//! `lbaudit selftest --faults`: every kind of fault at every call of one scenario.
//!
//! Not covered: running it (`crate::campaign::faults`).

use super::selftest::{SelftestArgs, interrupted};
use crate::campaign::faults::{Grid, GridConfig, GridError, fail_the_nth};
use crate::cli::Context;
use crate::cli::args::Form;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::report::{fault_figures, fault_lines};

/// Fails the Nth call, prints the grid.
///
/// # Errors
/// [`Failure`] for an unknown kind, or if the self-test cannot be set up.
pub(super) fn run(args: &SelftestArgs, context: &mut Context) -> Result<Exit, Failure> {
    let config = GridConfig {
        kinds: args.fault.clone(),
        quick: args.quick,
        pairs: args.pairs,
        seed: args.pair_seed,
        ..GridConfig::default()
    };
    let grid =
        fail_the_nth(&config, context.stop.flag(), &|_| ()).map_err(|error| match error {
            GridError::Kind(_) => Failure::usage(error.to_string()),
            other => Failure::could_not(other.to_string()),
        })?;
    if let Some(interrupted) = interrupted(context) {
        return Err(interrupted);
    }
    show(&grid, context);
    if let Some(path) = &args.json {
        let json = serde_json::to_string(&fault_figures(&grid))
            .map_err(|error| Failure::could_not(format!("cannot encode the grid: {error}")))?;
        std::fs::write(path, json + "\n").map_err(|error| {
            Failure::could_not(format!("cannot write {}: {error}", path.display()))
        })?;
    }
    Ok(if grid.is_clean() { Exit::Passed } else { Exit::Violation })
}

fn show(grid: &Grid, context: &mut Context) {
    match context.ui.form {
        Form::Text => fault_lines(grid).iter().for_each(|line| context.ui.print(line)),
        Form::Jsonl => context.ui.json(&fault_figures(grid)),
    }
}
