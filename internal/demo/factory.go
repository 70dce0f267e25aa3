package demo

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/wire"
)

// stationDir is a programming centre on this machine.
type stationDir struct {
	dir, keys, fingerprint string
	env                    []string
}

// pin is the demo station's; the soft module takes none that is shorter.
const pin = "12345678"

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// run runs a command of the station; the PIN goes in over a file descriptor.
func (d *demo) atStation(ctx context.Context, args ...string) (string, error) {
	in, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer in.Close()
	if _, err := w.WriteString(pin + "\n"); err != nil {
		return "", errors.Join(err, w.Close())
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, d.bin.station, append([]string{"--dir", d.station.dir, "--pin-fd", "3"}, args...)...)
	cmd.ExtraFiles = []*os.File{in}
	cmd.Env = append(os.Environ(), d.station.env...)
	return output(cmd)
}

// initStation begins a station, in SoftHSM when it is here.
func (d *demo) initStation(ctx context.Context) error {
	d.station = stationDir{dir: filepath.Join(d.dir, "station"), keys: "encrypted files (SoftHSM is not installed)"}
	args := []string{"--json", "init", "--name", "centre-1"}
	if tool, err := exec.LookPath("softhsm2-util"); err == nil {
		if _, err := os.Stat(softHSM); err == nil {
			if err := d.initToken(ctx, tool); err != nil {
				return err
			}
			args = append(args, "--pkcs11-module", softHSM, "--token-label", "centre-1")
		}
	}
	out, err := d.atStation(ctx, args...)
	if err != nil && len(args) > 4 { // built without PKCS#11
		d.station.env, d.station.keys = nil, "encrypted files (hallmark-station is built without PKCS#11)"
		if err := os.RemoveAll(d.station.dir); err != nil {
			return err
		}
		out, err = d.atStation(ctx, args[:4]...)
	}
	if err != nil {
		return err
	}
	var said struct {
		ID     string `json:"id"`
		Module string `json:"module"`
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		return fmt.Errorf("the station's answer: %w", err)
	}
	d.station.fingerprint = said.ID
	return nil
}

func (d *demo) initToken(ctx context.Context, tool string) error {
	tokens := filepath.Join(d.dir, "tokens")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return err
	}
	conf := filepath.Join(d.dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil { //nolint:forbidigo // the demo's own scratch file
		return err
	}
	d.station.env = []string{"SOFTHSM2_CONF=" + conf}
	d.station.keys = "SoftHSM"
	cmd := exec.CommandContext(ctx, tool, "--init-token", "--free", "--label", "centre-1", "--pin", pin, "--so-pin", "123456")
	cmd.Env = append(os.Environ(), d.station.env...)
	_, err := output(cmd)
	return err
}

// produce has the devices made: order, station, records.
func (d *demo) produce(ctx context.Context) error {
	d.say("\nThe factory: an order of %d, made at a station we do not trust", d.o.Devices)
	if err := d.initStation(ctx); err != nil {
		return err
	}
	var oem factory.OEMFile
	if err := insist(ctx, func() (err error) { oem, err = d.people["frank"].OEM(ctx); return err }); err != nil {
		return err
	}
	data, err := json.Marshal(oem)
	if err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(d.dir, name) }
	if err := os.WriteFile(path("oem.json"), data, 0o600); err != nil { //nolint:forbidigo // a file between two machines
		return err
	}
	if _, err := d.atStation(ctx, "trust", path("oem.json")); err != nil {
		return err
	}
	if _, err := d.atStation(ctx, "descriptor", "--oem", oemID, "-o", path("station.hmd")); err != nil {
		return err
	}
	if err := d.placeOrder(ctx, path("station.hmd"), path("order.hmo")); err != nil {
		return err
	}
	if _, err := d.atStation(ctx, "import", path("order.hmo")); err != nil {
		return err
	}
	if err := d.overProduce(ctx, d.o.Devices+1); err != nil {
		return err
	}
	started := time.Now()
	if _, err := d.runStation(ctx, d.o.Devices); err != nil {
		return err
	}
	d.say("  made %d in %s, station keys in %s", d.o.Devices, time.Since(started).Round(100*time.Millisecond), d.station.keys)
	if err := d.overProduce(ctx, 1); err != nil {
		return err
	}
	if _, err := d.atStation(ctx, "export", d.order, "-o", path("records.hmr")); err != nil {
		return err
	}
	records, err := os.ReadFile(path("records.hmr"))
	if err != nil {
		return err
	}
	var rep factory.ImportReport
	if err := insist(ctx, func() (err error) {
		rep, err = d.people["frank"].ImportRecords(ctx, d.order, bytes.NewReader(records), int64(len(records)))
		return err
	}); err != nil {
		return err
	}
	if err := d.meet(ctx); err != nil {
		return err
	}
	return d.step(Step{
		Step: "production", Expected: fmt.Sprintf("%d devices on record, no alarm", d.o.Devices), OK: rep.Accepted+rep.Known == d.o.Devices && len(rep.Alarms) == 0,
		Observed: fmt.Sprintf("%d made at a station with keys in %s, %d accepted, %d alarms", d.o.Devices, d.station.keys, rep.Accepted+rep.Known, len(rep.Alarms)),
		Ledger:   d.place(ctx, "events", "device.provisioned", d.agents[0].id),
	})
}

func (d *demo) placeOrder(ctx context.Context, descriptor, file string) error {
	desc, err := os.ReadFile(descriptor)
	if err != nil {
		return err
	}
	fingerprint, err := hex.DecodeString(d.station.fingerprint)
	if err != nil {
		return err
	}
	n := 0
	req := httpapi.OrderRequest{
		Product: productID, Hardware: hardware, Quota: uint32(d.o.Devices), NotAfter: time.Now().Add(24 * time.Hour),
		Descriptor: desc, StationPin: fingerprint, Release: d.releases[v1],
		Params: wire.DeviceParams{
			Flash:   wire.Flash{Size: 2 * uint64(d.payload()), Erase: 16 << 10, Slots: 2, SlotSize: uint64(d.payload())},
			Servers: wire.Servers{Device: strings.Replace(d.devURL, "127.0.0.1", "localhost", 1)},
		},
	}
	return insist(ctx, func() error {
		n++ // an order's file is given out once: who did not get it orders anew
		req.ID = fmt.Sprintf("order-%d", n)
		return durable.Write(file, 0o600, func(w io.Writer) error {
			o, err := d.people["frank"].CreateOrder(ctx, req, w)
			d.order = o.ID
			return err
		})
	})
}

// payload is the largest release the devices must take.
func (d *demo) payload() int {
	largest := 0
	for _, i := range d.images {
		largest = max(largest, len(i))
	}
	return largest + 64<<10
}

func (d *demo) runStation(ctx context.Context, n int) (string, error) {
	device := fmt.Sprintf("%s factory --dir {dir} --socket {socket} --payload-bytes %d --hardware %s", d.bin.agent, d.payload(), hardware)
	return d.atStation(ctx, "run", d.order, "-n", fmt.Sprint(n), "--parallel", "4", "--device-exec", device, "--devices-dir", d.devicesDir())
}

func (d *demo) devicesDir() string { return filepath.Join(d.dir, "devices") }

// overProduce asks for more than what is left of the quota.
func (d *demo) overProduce(ctx context.Context, n int) error {
	_, err := d.runStation(ctx, n)
	var exit *exec.ExitError
	refused := errors.As(err, &exit) && exit.ExitCode() == 3
	saw := "the station made it"
	if err != nil {
		_, saw, _ = strings.Cut(err.Error(), "exit status 3: ")
	}
	return d.step(Step{Step: "more than the quota", Expected: "refused", OK: refused, Observed: saw})
}

// meet finds the devices the station made.
func (d *demo) meet(ctx context.Context) error {
	dirs, err := filepath.Glob(filepath.Join(d.devicesDir(), "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "board.json")); err != nil {
			continue
		}
		a := &device{d: d, dir: dir}
		f, err := a.inspect(ctx)
		if err != nil {
			return err
		}
		a.id = f.Device
		d.agents = append(d.agents, a)
	}
	if len(d.agents) != d.o.Devices {
		return fmt.Errorf("the station left %d boards, want %d", len(d.agents), d.o.Devices)
	}
	return nil
}
