#!/usr/bin/env bash
# Runs an experiment through a real Slurm of one machine, as root on Debian or Ubuntu: an array of
# jobs, one of which is preempted in the midst of a run and requeued, another one killed.  The runs
# must have the bytes of those that one process makes.  Everything that is started is ended again, and
# what was installed for it removed.
#
#   tests/slurm.sh [PYTHON]      a Python that has sumrnn[cluster]
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "$(command -v "${1:-python3}")")
work=$(mktemp -d) installed=no
chmod 755 "$work"

clean() {
    set +e
    for name in slurmd slurmctld munged; do
        [ -f "$work/$name.pid" ] && kill "$(cat "$work/$name.pid")" && sleep 1
    done
    rm -rf "$work"
    [ "$installed" = yes ] && apt-get remove -y -qq --purge --autoremove slurm-wlm munge
}
trap clean EXIT

if ! command -v slurmctld > /dev/null; then
    installed=yes
    apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge
    service munge stop || true
fi

export SLURM_CONF=$work/slurm.conf
host=$(hostname -s)
mkdir "$work"/{state,spool,log}
dd if=/dev/urandom of="$work/munge.key" bs=1024 count=1 status=none
chmod 400 "$work/munge.key"
cat > "$SLURM_CONF" << END
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/log/slurmctld
SlurmdLogFile=$work/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
munged --force --key-file="$work/munge.key" --socket="$work/munge.socket" \
    --pid-file="$work/munged.pid" --log-file="$work/log/munged" --seed-file="$work/seed"
slurmctld
slurmd
for _ in $(seq 60); do
    sinfo --noheader --format %t 2> /dev/null | grep -q '^idle' && break
    sleep 1
done
sinfo

# An experiment whose runs take a while.
cat > "$work/loopback.py" << END
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.study.experiment import Experiment

EXPERIMENT = Experiment(
    name="loopback",
    question="Does a run survive its job?",
    conditions={
        "long": Config(
            TaskConfig(size=2_000, length=6, high=4, threshold=12),
            ModelConfig(cells=8),
            TrainConfig(epochs=2_000, learning_rate=1e-2),
        )
    },
    seeds="0:4",
)
END
experiment() { "$python" scripts/experiment.py "$@"; }
jobs_are() { # that run
    squeue --noheader --array --states RUNNING --format %i
}

experiment tiny --out "$work/direct-tiny"
experiment "$work/loopback.py" --out "$work/direct" --devices 1

experiment tiny --launcher slurm --parallel 3 --partition all --out "$work/tiny"

options=(--launcher slurm --checkpoint-every 50 --out "$work/jobs")
"$python" scripts/experiment.py "$work/loopback.py" "${options[@]}" > "$work/log/out" 2>&1 &
launcher=$!
for _ in $(seq 120); do
    begun=("$work"/jobs/runs/*/checkpoints/*.npz)
    [ "${#begun[@]}" -ge 3 ] && [ "$(jobs_are | wc -l)" -ge 2 ] && break
    sleep 0.5
done
mapfile -t running < <(jobs_are)
echo "preempting ${running[0]}, killing ${running[1]}, interrupting the launcher"
# It asks again and again whether the job has got it, which is gone by then.
timeout 2 scancel --signal=USR2 "${running[0]}" || true
timeout 2 scancel --signal=KILL "${running[1]}" || true
sleep 3
kill -TERM "$launcher"
wait "$launcher" && exit 1 || [ $? -eq 143 ]
tail -n 1 "$work/log/out"
grep -q "terminated with . of 4 runs done; . jobs go on" "$work/log/out"
# A requeued job waits two minutes, unless it is told not to.
for _ in $(seq 30); do
    scontrol update "jobid=${running[0]}" starttime=now 2> /dev/null && break
    sleep 1
done
experiment "$work/loopback.py" "${options[@]}"

same() { # two batches: every run's arrays, the table and the summary
    for run in "$1"/runs/*; do
        cmp "$run/predictions.npz" "$2/runs/$(basename "$run")/predictions.npz"
        diff <(cut -d, -f1-5 "$run/history.csv") <(cut -d, -f1-5 "$2/runs/$(basename "$run")/history.csv")
    done
    cmp "$1/runs.csv" "$2/runs.csv"
}
same "$work/direct-tiny" "$work/tiny"
same "$work/direct" "$work/jobs"
[ -z "$(squeue --noheader)" ]
echo "the same bytes"
