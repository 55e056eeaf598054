#!/bin/bash
# Runs every fuzz target of the module for a while: fuzz.sh [TIME]
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}
go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./... |
	while read -r package dir; do
		{ grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go || :; } | sed 's/^func //' | sort -u |
			while read -r target; do
				echo "== $package $target"
				go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package"
			done
	done
