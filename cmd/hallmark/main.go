// Command hallmark is the maker's side: server, command line, wrapping tool, auditor and demo in one binary.
package main

import (
	"os"

	"github.com/hallmark-iot/hallmark/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
