package docstest

import (
	"reflect"
	"testing"
)

func TestCallsAreFoundAsAShellWouldFindThem(t *testing.T) {
	const page = "Text with `hallmark not this`.\n\n" +
		"```sh skip\n" +
		"export HALLMARK_PASSPHRASE='choose one'\n" +
		"hallmark init --dir ./maker --name 'a b' & # hallmark not this\n" +
		"for d in ./devices/*/; do hallmark list --all 2>&1 | tee out; done\n" +
		"hallmark show \"$(hallmark pick --one 3<pin)\" \\\n    --out file >log\n" +
		"podman run --name hallmark serve\n" +
		"hallmark-station run\n" +
		"```\n\n" +
		"```console\n# sudo -u hallmark hallmark serve --dir /d\n$ A=b hallmark man\n```\n" +
		"```json\nhallmark not this\n```\n"
	want := [][]string{
		{"init", "--dir", "./maker", "--name", "a b"},
		{"list", "--all"},
		{"pick", "--one"},
		{"show", "$()", "--out", "file"},
		{"serve", "--dir", "/d"},
		{"man"},
	}
	if got := In(page, "hallmark"); !reflect.DeepEqual(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	if got := In(page, "hallmark-station"); !reflect.DeepEqual(got, [][]string{{"run"}}) {
		t.Errorf("%q", got)
	}
}

func TestWhatAProgramDoesNotTakeIsNamed(t *testing.T) {
	help := func(args ...string) (int, string) {
		switch {
		case args[0] == "device":
			return 0, "Usage:\n  hallmark device [command]\n\nAvailable Commands:\n"
		case args[1] == "--no":
			return 2, "unknown flag: --no"
		}
		return 0, "Usage:\n  hallmark init [flags]\n"
	}
	calls := []Call{
		{"good", []string{"init", "--dir", "x"}},
		{"good", []string{"device"}},
		{"good", []string{"device", "--json"}},
		{"bad.md", []string{"device", "dance"}},
		{"worse.md", []string{"init", "--no"}},
	}
	want := []string{`bad.md: ["device" "dance"]: there is no such command`, `worse.md: ["init" "--no"]: unknown flag: --no`}
	if got := Wrong(calls, help); !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}
