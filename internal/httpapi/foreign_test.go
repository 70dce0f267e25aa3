package httpapi_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
)

// schemathesis makes requests up from the description, on things that are there: whatever it asks for, the answer is one that the
// description has, and no failure of the server.
func TestInteropSchemathesis(t *testing.T) {
	tool, err := filepath.Abs("../../.cache/schemathesis/bin/st")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		t.Skip("needs schemathesis: scripts/schemathesis.sh installs it")
	}
	w := newWorld(t)
	w.start()
	w.issue("all", access.Roles())
	var toml strings.Builder
	toml.WriteString("[parameters]\n\"header.If-Match\" = \"*\"\n\n") // anything else would be refused before it is looked at
	for prefix, id := range map[string]string{
		"/devices/": subject, "/findings/": "f1", "/remedies/": heldCase, "/retirements/": ending, "/rollouts/": "ro-1", "/orders/": "ord-1",
		"/products/": "pump", "/commands/": "c1", "/streams/grants/": "g1",
	} {
		toml.WriteString("[[operations]]\ninclude-path-regex = \"^/api/v1" + prefix + ".+\"\nparameters = { \"path.id\" = \"" + id + "\", \"path.product\" = \"pump\" }\n\n")
	}
	toml.WriteString("[[operations]]\ninclude-path-regex = \"^/api/v1/releases/.+\"\nparameters = { \"path.digest\" = \"" + releaseDigest() + "\" }\n\n")
	toml.WriteString("[[operations]]\ninclude-path-regex = \"^/api/v1/releases$\"\nparameters = { \"query.product\" = \"pump\" }\n")
	config := filepath.Join(t.TempDir(), "schemathesis.toml")
	if err := os.WriteFile(config, []byte(toml.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	examples := "10"
	if os.Getenv("HALLMARK_LONG") != "" {
		examples = "200"
	}
	cmd := exec.CommandContext(t.Context(), tool, "--config-file", config, "run", w.api+"/openapi.json", "--header", "Authorization: Bearer "+w.tokens["all"],
		"--checks", "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance",
		"--exclude-path", "/api/v1/events", "--phases", "examples,coverage,fuzzing", "--max-examples", examples, "--seed", "1", "--no-color")
	hooks, err := filepath.Abs("testdata/hooks.py")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "SCHEMATHESIS_HOOKS="+hooks)
	cmd.Dir = t.TempDir() // it leaves files behind
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}
