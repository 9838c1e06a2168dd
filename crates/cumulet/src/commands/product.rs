//! Products, as an operator and through him a seller manages them.

use std::process::ExitCode;

use clap::Subcommand;

use super::Context;
use super::ask::{answer, answer_as_of_now};
use super::records::{InAccount, OfAccount};
use crate::operator::Request;
use crate::operator::products::{self, Usage};

#[derive(Subcommand)]
pub(crate) enum ProductCommand {
    /// Makes a product, which belongs to the account that sells it.
    Create {
        #[command(flatten)]
        account: InAccount,
        /// Its code, letters and digits; eight hexadecimal digits are drawn when not given.
        #[arg(long)]
        code: Option<String>,
    },
    /// All products, or those that one account sells.
    List {
        #[command(flatten)]
        account: OfAccount,
    },
    /// One product, with the accounts that are subscribed to it.
    Show {
        /// The product's code.
        code: String,
    },
    /// Deletes a product that no image and no instance carries, with its subscriptions.
    Delete {
        /// The product's code.
        code: String,
    },
    /// Lets an account launch images that carry the code.
    Subscribe {
        /// The product's code.
        code: String,
        #[command(flatten)]
        account: InAccount,
    },
    /// Ends that: instances that run go on, and are counted.
    Unsubscribe {
        /// The product's code.
        code: String,
        #[command(flatten)]
        account: InAccount,
    },
    /// The hours that instances have used of products, one a line; kept for 400 days.
    Usage {
        #[command(flatten)]
        account: OfAccount,
        /// Of one product.
        #[arg(long)]
        code: Option<String>,
        /// Hours that began then or later, as 2007-03-01 or 2007-03-01T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Hours that began before that.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Only how many, for each product and account.
        #[arg(long)]
        sum: bool,
    },
}

pub(crate) fn run(context: &Context, command: ProductCommand) -> anyhow::Result<ExitCode> {
    let request = match command {
        ProductCommand::Create {
            account: InAccount { account },
            code,
        } => products::Request::Create { account, code },
        ProductCommand::List {
            account: OfAccount { account },
        } => products::Request::List { account },
        ProductCommand::Show { code } => products::Request::Show { code },
        ProductCommand::Delete { code } => products::Request::Delete { code },
        ProductCommand::Subscribe {
            code,
            account: InAccount { account },
        } => products::Request::Subscribe { account, code },
        ProductCommand::Unsubscribe {
            code,
            account: InAccount { account },
        } => products::Request::Unsubscribe { account, code },
        ProductCommand::Usage {
            account: OfAccount { account },
            code,
            from,
            until,
            sum,
        } => {
            let usage = products::Request::Usage(Usage {
                account,
                code,
                from,
                until,
                sum,
            });
            // What runs without a server is counted by the next one.
            return answer_as_of_now(context, &Request::Product(usage));
        }
    };
    answer(context, &Request::Product(request))
}
