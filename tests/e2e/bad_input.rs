//! The table "Bad input" of `proto/README.md`, row by row: the answer, the close code, and two bystanders who notice nothing.

mod commands;
mod flood;
mod frames;
mod secrets;
mod sign_in;
mod websocket;
