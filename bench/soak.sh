#!/usr/bin/env bash
# 100,000 requests over 64 connections through two workers: fails on a single wrong answer.
# usage: bench/soak.sh [REQUESTS]
source "$(dirname "$0")/common.sh"

requests=${1:-100000}
start_gateway 2
load --connections 64 --requests "$requests"
load --connections 64 --requests "$((requests / 10))" --path /widget/session --body '{"merchant_transaction_id":"soak"}'
load --connections 64 --requests "$((requests / 1000))" --ws
echo "soak: no errors"
