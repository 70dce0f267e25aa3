// Command reference makes what is written down about Hallmark's surfaces out of the code that is them.
//
// Over all stages. It runs when the tree is built, never in a program: `make docs` writes docs/reference with it, `make clients`
// reads the API's description from it. What it makes depends on the source alone, and this package's tests fail while what is
// committed is not what it would make now.
//
//	reference docs           writes docs/reference
//	reference openapi        prints the API's description, OpenAPI 3.1
//	reference openapi-go     prints it as the Go client is made of it, OpenAPI 3.0
package main

import (
	"errors"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("say docs, openapi or openapi-go")
	}
	var data []byte
	var err error
	switch args[0] {
	case "docs":
		return writePages(".")
	case "openapi":
		data, err = description()
	case "openapi-go":
		data, err = descriptionForGo()
	default:
		return fmt.Errorf("%q is neither docs, openapi nor openapi-go", args[0])
	}
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(data)
	return err
}
