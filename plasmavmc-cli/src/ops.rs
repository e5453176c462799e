//! `plasmavmc op`.

use plasmavmc_proto::api::{CancelOperationRequest, GetOperationRequest, ListOperationsRequest, Operation};

use crate::args::{OpCommand, OpListArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress;
use crate::show::{operation_text, operations_table};

/// How many are asked for at once.
const PAGE: u32 = 200;

pub async fn run(context: &Context, command: OpCommand) -> Result<(), Failure> {
    match command {
        OpCommand::List(args) => list(context, args).await,
        OpCommand::Get { id } => {
            let operation = context
                .reach
                .ask("look at the operation", GetOperationRequest { id })
                .await?;
            show(context, &operation)
        }
        OpCommand::Cancel { id } => {
            let operation = context
                .reach
                .ask("cancel the operation", CancelOperationRequest { id })
                .await?;
            show(context, &operation)
        }
        OpCommand::Wait { id } => {
            let operation = context
                .reach
                .ask("wait for the operation", GetOperationRequest { id })
                .await?;
            let ended = progress::to_end(context, operation).await?;
            show(context, &ended)
        }
    }
}

fn show(context: &Context, operation: &Operation) -> Result<(), Failure> {
    context
        .screen
        .one(operation, || operation_text(operation, context.screen.now_ms))
}

async fn list(context: &Context, args: OpListArgs) -> Result<(), Failure> {
    let vm = args.vm.unwrap_or_default();
    let operations = all(context, &vm, args.all, args.limit).await?;
    if operations.is_empty() {
        context.screen.note(if args.all {
            "no operations"
        } else {
            "nothing is under way; --all shows what has ended"
        });
    }
    let screen = &context.screen;
    screen.list(&operations, || match operations.is_empty() {
        true => String::new(),
        false => operations_table(&operations, screen.colours, screen.now_ms),
    })
}

/// Newest first, page by page.
pub async fn all(context: &Context, vm: &str, ended: bool, limit: u32) -> Result<Vec<Operation>, Failure> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut page_token = String::new();
    let limit = limit as usize;
    loop {
        let request = ListOperationsRequest {
            vm: vm.to_owned(),
            include_ended: ended,
            page_size: PAGE,
            page_token: page_token.clone(),
        };
        let page = context.reach.ask("list operations", request).await?;
        let is_last = page.next_page_token.is_empty() || page.next_page_token == page_token;
        operations.extend(page.operations);
        if is_last || operations.len() >= limit {
            operations.truncate(limit);
            return Ok(operations);
        }
        page_token = page.next_page_token;
    }
}
