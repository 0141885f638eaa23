//! Options that every command takes.

use std::path::PathBuf;

use clap::ArgAction;

use super::terminal::Color;

const HEADING: &str = "Options of all commands";

/// Options that every command takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Globals {
    /// The workflow file, as an option
    #[arg(id = "workflow_file", short = 'f', long = "file", value_name = "FILE", global = true, help_heading = HEADING)]
    pub file: Option<PathBuf>,
    /// Where the state lies; default: .bpp-flow/NAME beside the file, or below $BPP_FLOW_STATE
    #[arg(long, value_name = "DIR", global = true, help_heading = HEADING)]
    pub state: Option<PathBuf>,
    /// Overrides a parameter of the workflow; repeatable
    #[arg(long = "param", value_name = "K=V", value_parser = param, global = true, help_heading = HEADING)]
    pub params: Vec<(String, String)>,
    /// Lays a profile of the workflow over it, or one that a file holds (a name with `/`, .yaml or .yml); repeatable
    #[arg(long = "profile", value_name = "NAME|FILE", global = true, help_heading = HEADING)]
    pub profiles: Vec<String>,
    /// Uses a state on a network file system all the same
    #[arg(long, global = true, help_heading = HEADING)]
    pub state_on_network_fs: bool,
    /// Says nothing while all goes well
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = HEADING)]
    pub quiet: bool,
    /// Tells of every item
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = HEADING)]
    pub verbose: u8,
    /// Colours: on a terminal, always or never; $NO_COLOR is honoured
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, global = true, help_heading = HEADING)]
    pub color: Color,
}

impl Globals {
    /// The options that further commands for the same workflow and state need.
    pub(super) fn identity(&self) -> Vec<String> {
        let mut options = Vec::new();
        if let Some(state) = &self.state {
            options.extend(["--state".to_string(), state.display().to_string()]);
        }
        for profile in &self.profiles {
            options.extend(["--profile".to_string(), profile.clone()]);
        }
        for (name, value) in &self.params {
            options.extend(["--param".to_string(), format!("{name}={value}")]);
        }
        if self.state_on_network_fs {
            options.push("--state-on-network-fs".to_string());
        }
        options
    }
}

fn param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err("a parameter is given as NAME=VALUE".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_split_at_its_first_sign() {
        assert_eq!(param("a=b=c"), Ok(("a".to_string(), "b=c".to_string())));
        assert_eq!(param("a="), Ok(("a".to_string(), String::new())));
        assert!(param("a").is_err());
        assert!(param("=b").is_err());
    }

    #[test]
    fn further_commands_keep_what_decides_the_workflow() {
        let globals = Globals {
            state: Some("s".into()),
            profiles: vec!["hpc".into(), "./mine.yaml".into()],
            params: vec![("n".into(), "5".into())],
            verbose: 1,
            ..Globals::default()
        };
        assert_eq!(
            globals.identity(),
            ["--state", "s", "--profile", "hpc", "--profile", "./mine.yaml", "--param", "n=5"]
        );
    }
}
