//! What is sent of a task.

use super::frames::{self, Form};
use crate::executor::command::json_lines;
use crate::executor::wire;
use crate::executor::{Job, TaskInput};

/// What the body of a task is.
pub(super) fn form_of(input: &TaskInput) -> Form {
    match input {
        TaskInput::Rows { .. } => Form::Rows,
        TaskInput::Commands(_) => Form::Commands,
        TaskInput::Group { command: None, .. } => Form::Group,
        TaskInput::Group { command: Some(_), .. } => Form::Commands,
    }
}

/// The body of a task.
pub(super) fn body_of(seq: u64, job_id: u32, job: &Job, input: TaskInput) -> Vec<u8> {
    match input {
        TaskInput::Commands(items) => frames::commands(&items),
        TaskInput::Group { rows, command: Some(mut command), .. } => {
            command.stdin = Some(rows.flat_map(|table| json_lines(&table)).flatten().collect());
            frames::commands(&[command])
        }
        TaskInput::Group { rows, args, command: None } => {
            let mut body = wire::group_frame(seq, job_id, 0, &args);
            rows.for_each(|table| body.extend(wire::rows_frame(&table)));
            body.extend(wire::end_of_rows_frame());
            body
        }
        rows @ TaskInput::Rows { .. } => wire::task_frame(seq, job_id, 0, job, &rows),
    }
}
