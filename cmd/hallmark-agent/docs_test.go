package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/docstest"
)

// What the pages tell people to type is taken by the program: the command is there, and so are its flags.
func TestEveryCallInTheDocumentationParses(t *testing.T) {
	calls := docstest.Calls(t, filepath.Join("..", ".."), "hallmark-agent")
	if len(calls) == 0 {
		t.Fatal("no call found")
	}
	for _, w := range docstest.Wrong(calls, func(args ...string) (int, string) {
		var out bytes.Buffer
		begun := false
		cmd := newRoot(&begun, newPlug())
		cmd.SetArgs(args)
		cmd.SetOut(&out)
		if err := cmd.Execute(); err != nil {
			return 1, err.Error()
		}
		return 0, out.String()
	}) {
		t.Error(w)
	}
}
