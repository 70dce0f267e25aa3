package demo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// madeAndUpdated has a device of a product made, enrolled and updated, by people of the getting-started guide.
const madeAndUpdated = `
life() {
  printf '#!/bin/sh\n# %%s 1.0.0\nexec sleep 1000000\n' $1 >app && chmod +x app
  printf '{"read": ["/bin", "/etc/ld.so.cache", "/lib", "/lib64", "/usr/bin", "/usr/lib"]}' >app.json
  release $1 1.0.0
  hallmark order create --token-file frank --id first-$1 --product $1 --hardware A --quota 1 --release $1@1.0.0 --descriptor station.hmd \
    --station "$(sed -n 's/^fingerprint //p' bench.txt)" --server https://%[1]s --slot-size 16777216 --out $1.hmo
  hallmark-station --dir ./station --pin-fd 3 import $1.hmo 3<pin
  hallmark-station --dir ./station --pin-fd 3 run first-$1 -n 1 --devices-dir ./devices-$1 \
    --device-exec 'hallmark-agent factory --dir {dir} --socket {socket} --payload-bytes 16777216' 3<pin
  hallmark-station --dir ./station --pin-fd 3 export first-$1 -o $1.hmr 3<pin
  hallmark order import --token-file frank first-$1 $1.hmr
  for d in ./devices-$1/*/; do hallmark-agent run --dir "$d" & done
  until hallmark device list --token-file olga --product $1 | grep -q 'active *1.0.0 *healthy *warning'; do sleep 0.2; done
  printf '#!/bin/sh\n# %%s 1.1.0\nexec sleep 1000000\n' $1 >app
  release $1 1.1.0 --rollback-to $1@1.0.0
  hallmark rollout create --token-file olga $1-1.1.0 --product $1 --release $1@1.1.0 --all --soak 1s --start
}
release() {
  hallmark release create --token-file rita --product $1 --version $2 --counter 1 --file app=./app:exec --capabilities app=app.json ${@:3}
  for who in alice bob; do hallmark release approve --token-file $who $1@$2 --key ./maker/offline/approver-$who.key; done
  hallmark release publish --token-file rita $1@$2
}
updated() { until hallmark device list --token-file olga --product $1 | grep 'active *1.1.0 *healthy'; do sleep 0.2; done; }
`

// A device of each of two products is made at one station, enrols and takes an update; the second product came to be by the guide's
// commands, copied from it.
func TestTwoProductsLiveSideBySide(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real programs for a minute")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/guide/second-product.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	withModules(t, filepath.Join(dir, "bin"))
	api, err := freePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	devices, err := freePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	local := strings.NewReplacer("127.0.0.1", "localhost") // the name in the server's certificate
	script := "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\nexport HALLMARK_PASSPHRASE=pass\n" +
		fmt.Sprintf(`hallmark init --dir ./maker --api %s --devices %s --kdf-iterations 1000 --oem acme --product pump --hardware A --allow-virtual --poll-ms 500 --attest-s 5
hallmark serve --dir ./maker &
until (echo >/dev/tcp/%s) 2>/dev/null; do sleep 0.1; done
hallmark context add maker --url http://%s --token-file ./maker/admin.token
for who in rita alice bob frank; do hallmark token create person:$who --role release-manager,factory --out $who; done
hallmark token create person:olga --role operator,viewer --out olga
echo 4711-0815 >pin && chmod 600 pin
hallmark-station --dir ./station --pin-fd 3 init --name bench 3<pin | tee bench.txt
hallmark order oem --token-file frank --out oem.json
hallmark-station --dir ./station --pin-fd 3 trust oem.json 3<pin
hallmark-station --dir ./station --pin-fd 3 descriptor --oem acme -o station.hmd 3<pin
`, api, devices, strings.ReplaceAll(api, ":", "/"), local.Replace(api)) + strings.Join(commandsOf(string(text)), "\n") +
		fmt.Sprintf(madeAndUpdated, local.Replace(devices)) + "life pump\nlife valve\nupdated pump\nupdated valve\n"
	cmd := exec.CommandContext(t.Context(), "timeout", "300", "bash", "-c", script)
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"), "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said := strings.Join(strings.Fields(string(out)), " ")
	for what, n := range map[string]int{"ready no: its CA and its first trust bundle missing": 1, "ready yes": 2, "active 1.1.0 healthy": 2} {
		if got := strings.Count(said, what); got != n {
			t.Errorf("%q %d times, want %d", what, got, n)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
