package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hallmark-iot/hallmark/"

// rule says what the packages in a folder may import of ours, and what they may not import of others.
type rule struct {
	folder string   // the longest that fits a package applies; a package that none fits is a failure
	ours   []string // folders of ours it may import, besides its own; "*" is any
	never  []string // import paths it may not import itself, with everything below them
	deep   []string // the same, not even through another package; a folder of ours is written with ourPrefix
}

const ourPrefix = module

const cobra = "github.com/spf13/cobra"

// The groups of the table, each the one before and more.
var (
	base   = []string{"wire", "suite", "fault"}
	ground = append([]string{"ledger", "access"}, base...)
	floor  = append([]string{"device", "keyring", "pki", "product"}, ground...)
	stages = append([]string{
		"supply", "factory", "onboard", "attest", "protect", "release", "rollout", "telemetry", "monitor", "remedy", "retire", "comply", "fleet", "genuine",
	}, floor...)
	adapters = []string{
		"internal/est", "internal/httpapi", "internal/console", "internal/deviceapi", "internal/ddi", "internal/mender",
	}
)

// What a group of packages may never have.
var (
	pure = []string{
		"net/http", "database/sql", "modernc.org", "os", "os/exec", "syscall", "golang.org/x/sys",
		ourPrefix + "access/signin", ourPrefix + "access/proposal", // who came in, and with whose consent, is decided before a stage is asked
	}
	noDB     = []string{"database/sql", "modernc.org", "github.com/pressly/goose", "github.com/jackc"}
	noServer = append([]string{
		"net/http/pprof", "expvar", cobra, "github.com/cedar-policy", "github.com/danielgtaylor/huma", "github.com/a-h/templ",
	}, noDB...)
	noStages = prefixed(slices.DeleteFunc(slices.Clone(stages), func(s string) bool { return slices.Contains(base, s) }))
	noHouse  = append(prefixed([]string{"internal"}), append(noStages, noServer...)...)
	noNet    = []string{"net/http"}
)

// rules are the direction of imports, in the order of a device's life.
var rules = []rule{
	// Under all stages: no I/O, and nothing of ours above them.
	{folder: "fault", never: pure, deep: noServer},
	{folder: "suite", ours: []string{"fault"}, never: pure, deep: slices.Concat(noNet, noServer)},
	{folder: "wire", ours: base, never: pure, deep: slices.Concat(noNet, noServer)},
	{folder: "ledger", ours: base, never: pure, deep: noServer},
	{folder: "ledger/audit", never: append([]string{"net/http"}, noDB...)}, // shares no code with the writer
	{folder: "ledger/mirror", ours: []string{"ledger/audit"}, never: pure},
	{folder: "ledger/witness", ours: ground, never: pure},
	{folder: "ledger/devicelog", ours: ground, never: pure},
	{folder: "ledger/custody", ours: ground, never: pure},
	{folder: "ledger/scitt", ours: ground, never: pure},
	{folder: "ledger/watch", ours: ground, never: pure},
	{folder: "access", ours: append([]string{"ledger"}, base...), never: pure},
	{folder: "access/signin", ours: append([]string{"ledger", "access"}, base...), never: pure},
	{folder: "access/proposal", ours: append([]string{"ledger", "access"}, base...), never: pure},
	{folder: "keyring", ours: ground, never: pure},
	{folder: "product", ours: ground, never: pure},
	{folder: "device", ours: ground, never: pure},
	{folder: "pki/profile", ours: base, never: pure},
	{folder: "pki/pkcs10", ours: base, never: pure},
	{folder: "pki", ours: ground, never: pure},
	{folder: "pki/ceremony", ours: append([]string{"pki"}, ground...), never: pure},

	// The stages.
	{folder: "supply", ours: floor, never: pure},
	{folder: "factory", ours: floor, never: pure},
	{folder: "onboard", ours: floor, never: pure},
	{folder: "attest", ours: floor, never: pure},
	{folder: "protect", ours: floor, never: pure},
	{folder: "release", ours: floor, never: pure},
	{folder: "rollout", ours: append([]string{"release"}, floor...), never: pure},
	{folder: "telemetry", ours: floor, never: pure},
	{folder: "monitor", ours: floor, never: pure},
	{folder: "remedy", ours: append([]string{"attest", "monitor"}, floor...), never: pure},
	{folder: "retire", ours: floor, never: pure},
	{folder: "comply", ours: stages, never: pure},
	{folder: "fleet", ours: stages, never: pure},
	{folder: "genuine", ours: floor, never: pure},

	// The device and the factory floor: no package of the server, not even through another.
	{folder: "agent", ours: base, never: noServer, deep: noHouse},
	{folder: "agent/boot", ours: append([]string{"agent/hw"}, base...), never: noNet, deep: slices.Concat(noNet, noHouse)},
	{folder: "agent/frame", ours: base, never: noNet, deep: slices.Concat(noNet, noHouse)},
	{folder: "agent/confine", never: noNet, deep: slices.Concat(noNet, noHouse)},
	{folder: "agent/hw", ours: append([]string{"agent/confine", "agent/frame"}, base...), never: noNet, deep: slices.Concat(noNet, noHouse)},
	{folder: "station", ours: base, never: noServer, deep: noHouse},
	// Its command line is the family's, cobra; nothing of that is below agent.
	{folder: "cmd/hallmark-agent", ours: append([]string{"agent"}, base...), never: except(noServer, cobra), deep: except(noHouse, cobra)},
	{folder: "cmd/hallmark-station", ours: append([]string{"station"}, base...), never: noDB, deep: slices.Concat(noDB, prefixed([]string{"internal"}), noStages)},
	{folder: "cmd/hallmark", ours: []string{"internal/cli", "fault"}, never: noDB},

	// How, not what. Adapters import stages, never each other and never a store.
	{folder: "internal/est", ours: append([]string{"internal/failpoint"}, stages...), never: noDB},
	{folder: "internal/httpapi", ours: append([]string{"internal/once", "internal/failpoint"}, stages...), never: noDB},
	{folder: "internal/console", ours: append([]string{"internal/label", "internal/plot"}, stages...), never: noDB},
	{folder: "internal/deviceapi", ours: append([]string{"internal/content"}, stages...), never: noDB},
	{folder: "internal/passkey", ours: stages, never: noDB},
	{folder: "internal/oidc", ours: stages, never: noDB},
	{folder: "internal/throttle", never: noDB},
	{folder: "internal/label", never: pure},
	{folder: "internal/content", never: noDB},
	{folder: "internal/pace", ours: []string{"fault"}, never: noDB},
	{folder: "internal/door", ours: []string{"internal/throttle"}, never: noDB},
	{folder: "internal/cad", ours: append([]string{"internal/durable"}, floor...), never: noDB},
	{folder: "internal/lines", ours: stages, never: noDB},
	{folder: "internal/witnessd", ours: append([]string{"internal/durable", "internal/failpoint"}, ground...), never: noDB},
	{folder: "internal/watchd", ours: append([]string{"internal/durable"}, ground...), never: noDB},
	{folder: "internal/witnesscall", ours: ground, never: noDB},
	{folder: "internal/ddi", ours: append([]string{"internal/content"}, stages...), never: noDB},
	{folder: "internal/mender", ours: append([]string{"internal/content"}, stages...), never: noDB},
	{folder: "internal/store", ours: append([]string{"internal/failpoint", "internal/once"}, stages...), never: noNet},
	{folder: "internal/once", never: pure, deep: noServer},
	{folder: "internal/blob", ours: []string{"release", "ledger", "fault", "internal/durable", "internal/failpoint"}},
	{folder: "internal/keys", ours: append([]string{"internal/durable"}, base...), never: noNet},
	{folder: "internal/rite", ours: append([]string{"pki/ceremony", "internal/keys", "internal/durable"}, floor...), never: append([]string{"net", "net/http"}, noDB...)},                 // on a machine without a network
	{folder: "internal/desk", ours: append([]string{"factory", "pki/ceremony", "internal/durable", "internal/failpoint"}, floor...), never: append([]string{"net", "net/http"}, noDB...)}, // on a machine without a network
	{folder: "internal/durable", ours: []string{"internal/failpoint"}, never: noNet},
	{folder: "internal/failpoint", never: noNet},
	{folder: "internal/plot", never: noNet},
	{folder: "client", never: noServer, deep: append(prefixed([]string{"internal"}), noStages...)}, // for programs of others: nothing of ours comes with it
	{folder: "internal/client", ours: append([]string{"internal/httpapi"}, stages...), never: noDB},
	{folder: "internal/server", ours: []string{"*"}}, // the composition root
	// The demo goes through the client; its thief has stolen the database, and so opens it.
	{folder: "internal/demo", ours: slices.Concat([]string{"internal/client", "internal/httpapi", "internal/store", "internal/server", "internal/keys", "internal/durable", "station"}, stages), never: noDB},
	{folder: "internal/cli", ours: slices.Concat([]string{
		"internal/label", "internal/client", "internal/server", "internal/demo", "internal/sim", "internal/plot", "internal/keys", "internal/durable", "internal/failpoint", "internal/rite", "internal/desk", "internal/witnessd", "internal/watchd", "internal/cad", "ledger/audit",
	}, stages), never: noDB},

	// What only tests and their runners use.
	{folder: "internal/sim", ours: []string{"*"}},
	{folder: "internal/factorytest", ours: []string{"*"}},
	{folder: "internal/legacytest", ours: []string{"*"}},
	{folder: "internal/docstest", never: noDB},
	{folder: "internal/bench", ours: []string{"internal/durable"}, never: noDB},
	{folder: "internal/bench/crowd", ours: append([]string{"internal/store"}, stages...), never: noDB},
	{folder: "internal/bench/atsize", ours: []string{"*"}, never: noDB}, // the real server over a crowd
	{folder: "internal/testrun", never: noDB},
	{folder: "internal/reference", ours: slices.Concat([]string{"internal/httpapi", "internal/cli", "internal/server"}, stages), never: noDB},
	{folder: "internal/archtest", never: noDB},

	// What outsiders may write: nothing of ours.
	{folder: "examples/verify", never: noServer, deep: slices.Concat(noNet, noHouse)},
}

func except(list []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == one })
}

func prefixed(folders []string) []string {
	out := make([]string, len(folders))
	for i, f := range folders {
		out[i] = ourPrefix + f
	}
	return out
}

func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

func ruleFor(path string) *rule {
	var best *rule
	for i, r := range rules {
		if within(path, r.folder) && (best == nil || len(r.folder) > len(best.folder)) {
			best = &rules[i]
		}
	}
	return best
}

// violation names what is wrong with the package at path importing imp itself; "" when nothing is.
func violation(path, imp string) string {
	r := ruleFor(path)
	if r == nil {
		return "no rule for this package: give it a row in rules_test.go"
	}
	if ours, ok := strings.CutPrefix(imp, module); ok {
		if within(ours, r.folder) {
			return ""
		}
		if why := forbidden(r, r.never, imp); why != "" {
			return why
		}
		if slices.Contains(r.ours, "*") || slices.ContainsFunc(r.ours, func(m string) bool { return within(ours, m) }) {
			return ""
		}
		return r.folder + " may not import " + ours
	}
	return forbidden(r, r.never, imp)
}

// deepViolation is the same for a package reached through others.
func deepViolation(path, dep string) string {
	r := ruleFor(path)
	if r == nil {
		return "" // violation says so
	}
	return forbidden(r, r.deep, dep)
}

func forbidden(r *rule, list []string, imp string) string {
	for _, f := range list {
		// Of the standard library "os" is one package, and what is below it another.
		if imp == f || f != "os" && within(imp, f) {
			return r.folder + " may not have " + f
		}
	}
	return ""
}

type pkg struct {
	ImportPath, Dir, Name string
	Imports, Deps         []string
	GoFiles               []string
	Error                 *struct{ Err string }
}

func (p pkg) path() string { return strings.TrimPrefix(p.ImportPath, module) }

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Name,Imports,Deps,GoFiles,Error", "../../...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Error != nil {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
		all = append(all, p)
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages found: the rules would hold for nothing", len(all))
	}
	return all
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range packages(t) {
		if ruleFor(p.path()) == nil {
			t.Errorf("%s: no rule for this package: give it a row in rules_test.go", p.path())
			continue
		}
		for _, imp := range p.Imports {
			if v := violation(p.path(), imp); v != "" {
				t.Errorf("%s imports %s: %s", p.path(), imp, v)
			}
		}
		for _, dep := range p.Deps {
			if v := deepViolation(p.path(), dep); v != "" {
				t.Errorf("%s needs %s, by way of others: %s", p.path(), dep, v)
			}
		}
	}
}

func TestEveryRuleHasAPackage(t *testing.T) {
	all := packages(t)
	for _, r := range rules {
		if !slices.ContainsFunc(all, func(p pkg) bool { return within(p.path(), r.folder) }) {
			t.Errorf("%s: a rule without a package: take the row out", r.folder)
		}
	}
}

func TestTheRulesCanFail(t *testing.T) {
	for _, c := range []struct {
		path, imp string
		bad       bool
	}{
		{"wire", "net/http", true},
		{"wire", "crypto/sha256", false},
		{"wire", "os", true},
		{"wire/idevid", module + "pki", true},
		{"device", "database/sql", true},
		{"device", "database/sql/driver", true},
		{"rollout", module + "release", false},
		{"release", module + "rollout", true},
		{"release", module + "internal/store", true},
		{"agent/gate", module + "device", true},
		{"agent/boot", "net/http", true},
		{"agent/link", "net/http", false},
		{"agent/link", "net/http/pprof", true},
		{"station", module + "internal/store", true},
		{"internal/est", module + "internal/httpapi", true},
		{"internal/est", module + "pki", false},
		{"internal/est", module + "internal/store", true},
		{"internal/demo", module + "internal/console", true},
		{"internal/server", module + "internal/store", false},
		{"ledger/audit", module + "ledger", true},
		{"ledger/audit", module + "wire", true},
		{"shed", "fmt", true},
	} {
		if got := violation(c.path, c.imp); (got != "") != c.bad {
			t.Errorf("%s importing %s: %q, want a violation: %v", c.path, c.imp, got, c.bad)
		}
	}
	for _, c := range []struct {
		path, dep string
		bad       bool
	}{
		{"cmd/hallmark-agent", "net/http", false},
		{"cmd/hallmark-agent", "net/http/pprof", true},
		{"cmd/hallmark-agent", "modernc.org/sqlite", true},
		{"cmd/hallmark-agent", module + "device", true},
		{"cmd/hallmark-agent", module + "devicefoo", false},
		{"cmd/hallmark-agent", module + "internal/durable", true},
		{"agent/boot", "net/http", true},
		{"cmd/hallmark-station", module + "factory", true},
		{"cmd/hallmark-station", "github.com/spf13/cobra", false},
		{"wire", "net/http", true},
	} {
		if got := deepViolation(c.path, c.dep); (got != "") != c.bad {
			t.Errorf("%s needing %s: %q, want a violation: %v", c.path, c.dep, got, c.bad)
		}
	}
}

// Adapters are each other's strangers: the table must not come to allow it one row at a time.
func TestNoRowLetsAdaptersMeet(t *testing.T) {
	for _, a := range adapters {
		for _, b := range append([]string{"internal/store"}, adapters...) {
			if a != b && violation(a, module+b) == "" {
				t.Errorf("the table lets %s import %s", a, b)
			}
		}
	}
}
