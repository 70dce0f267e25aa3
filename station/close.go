package station

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station/durable"
	"github.com/hallmark-iot/hallmark/wire"
)

const envelopeName = "order.cose"

// kept reads the order's envelope, which outlives the order file: who ordered, and the key records go back to.
func (s *Station) kept(id string) (wire.Order, []byte, error) {
	if !wire.ValidName(id) {
		return wire.Order{}, nil, fault.New(fault.Invalid, "order.invalid", fmt.Sprintf("order %q: not a name", id), "")
	}
	envelope, err := os.ReadFile(filepath.Join(s.orderDir(id), envelopeName))
	if errors.Is(err, os.ErrNotExist) {
		return wire.Order{}, nil, fault.New(fault.NotFound, "order.unknown", fmt.Sprintf("this station holds no order %q", id), "import its file first")
	}
	if err != nil {
		return wire.Order{}, nil, fmt.Errorf("station: %w", err)
	}
	o := &opened{envelope: envelope}
	if _, _, err := s.verifySigner(o); err != nil {
		return wire.Order{}, nil, err
	}
	if o.order.Header.ID != id {
		return wire.Order{}, nil, refused("changed", fmt.Errorf("the order kept as %q is %q", id, o.order.Header.ID))
	}
	return o.order, envelope, nil
}

// Show tells of one order.
func (s *Station) Show(id string) (Summary, error) {
	o, envelope, err := s.kept(id)
	if err != nil {
		return Summary{}, err
	}
	return s.summary(o.Header, wire.RecordHash(envelope))
}

// Export seals all records of an order, and the job-end certificate if it is closed, to the OEM. It may be done again and
// again: the OEM takes each record once. The run's limit on days without export counts from here.
func (s *Station) Export(id string, now time.Time) ([]byte, error) {
	o, envelope, err := s.kept(id)
	if err != nil {
		return nil, err
	}
	j, err := s.openJob(id, wire.RecordHash(envelope))
	if err != nil {
		return nil, err
	}
	defer j.close() //nolint:errcheck // nothing was written
	file := wire.RecordFile{Order: id}
	batch := wire.RecordBatch{Order: id, Records: [][]byte{}}
	flush := func() error {
		sealed, err := wire.SealBatch(batch, o.Header.ReturnKey)
		if err != nil {
			return err
		}
		file.Batches = append(file.Batches, sealed)
		batch.Records = [][]byte{}
		return nil
	}
	if err := j.envelopes(func(e []byte) error {
		batch.Records = append(batch.Records, bytes.Clone(e))
		if len(batch.Records) < wire.BatchRecords {
			return nil
		}
		return flush()
	}); err != nil {
		return nil, err
	}
	batch.JobEnd = j.end
	if len(batch.Records) > 0 || len(batch.JobEnd) > 0 {
		if err := flush(); err != nil {
			return nil, err
		}
	}
	if len(file.Batches) == 0 {
		return nil, fault.New(fault.Conflict, "order.empty", fmt.Sprintf("order %s has no records yet", id), "make a device first, or close the order")
	}
	j.state.Exported = now.UTC()
	if err := j.writeState(); err != nil {
		return nil, err
	}
	return wire.EncodeRecordFile(file)
}

// CloseOrder ends the order here: tickets left over are void, the order key and the order file are destroyed, and the job-end
// certificate says so. Closing again gives the same summary.
func (s *Station) CloseOrder(id string, now time.Time) (Summary, error) {
	order, envelope, err := s.kept(id)
	if err != nil {
		return Summary{}, err
	}
	anchor := wire.RecordHash(envelope)
	j, err := s.openJob(id, anchor)
	if err != nil {
		return Summary{}, err
	}
	if err := errors.Join(s.end(j, id, now), j.close()); err != nil {
		return Summary{}, err
	}
	return s.summary(order.Header, anchor)
}

func (s *Station) end(j *job, id string, now time.Time) error {
	path := filepath.Join(j.dir, orderName)
	if j.end == nil {
		o, err := s.load(id, now, false)
		if err != nil {
			return err
		}
		if err := errors.Join(j.settle(s, o, now), o.close()); err != nil {
			return err
		}
		root := wire.RecordsRoot(j.leaves)
		payload, err := wire.EncodeJobEnd(wire.JobEnd{
			Order: id, Station: s.id[:], Records: j.seq, Made: j.made, Scrapped: j.scrapped, Last: j.last[:], Root: root[:],
			KeyDestroyed: true, Time: uint64(now.Unix()),
			Statement: "The order key's object in module " + s.mod.Info().Name + " is destroyed and this station refuses the order from now on. " +
				"The wrapped blob in the order file stays openable by the wrapping key of this OEM at this station.",
		})
		if err != nil {
			return err
		}
		if j.end, err = wire.Sign1(wire.TypeJobEnd, payload, s.record); err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(j.dir, "end"), j.end); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("station: %w", err)
	}
	return durable.SyncDir(j.dir)
}
