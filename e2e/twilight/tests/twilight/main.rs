//! x
use twilight_gateway as _;
