[package]
name = "hello"
edition = "v0.10.0"
version = "0.1.0"
description = "A greeting, to see that packages can be read through ocifs"
