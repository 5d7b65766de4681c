//! The calls of real chat templates.

mod real_call_formats;
