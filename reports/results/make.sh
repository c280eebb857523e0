#!/bin/sh
# Make all runs of this machine anew, and keep them beside the code. Needs a quiet machine.
#
#   sh reports/results/make.sh                    all steps below, in this order, into runs/results/
#   sh reports/results/make.sh efficiency noise   some of them
#   sh reports/results/make.sh keep NAME          copy them to reports/results/NAME, and write pages
#
# What was stopped goes on where it was. A run of other code or another machine is set aside.
cd "$(dirname "$0")/../.." || exit 2
out=${OUT:-runs/results}
mkdir -p "$out"

efficiency() { # as tox run -e table does, without its limit of time
    lossbench run --suite efficiency --paired --restart --out "$out/efficiency.jsonl"
}

fair() {
    lossbench run --suite efficiency --implementation auto --paired --restart --out "$out/fair.jsonl"
}

implementations() {
    lossbench run --suite implementations --paired --accuracy --restart --out "$out/implementations.jsonl"
}

scaling() {
    lossbench run --suite scaling --pass step,forward --paired --restart --out "$out/scaling.jsonl"
}

third_parties() {
    lossbench run --loss vicreg,nt_xent --batch 256 --dim 8192 --paired --accuracy \
        --implementation reference,gram --restart --out "$out/third_parties.jsonl" \
        --contender 'vicreg.pml=pytorch_metric_learning.losses:VICRegLoss' \
        --contender 'nt_xent.pml=pytorch_metric_learning.losses:SelfSupervisedLoss?loss=pytorch_metric_learning.losses:NTXentLoss(temperature=0.1)'
}

predictions() {
    lossbench run --suite scaling --loss barlow_twins,nt_xent,smi,vicreg --pass step \
        --implementation reference,gram,chunked,compiled --restart --out "$out/predictions.jsonl"
}

pretrain() {
    lossbench pretrain --implementation reference,auto --paired --steps 60 --restart --out "$out/pretrain.jsonl" &&
        lossbench pretrain --loss barlow_twins,smi,vicreg --implementation reference,gram --paired \
            --batch 64 --set projector=512,2048 --steps 40 --out "$out/pretrain.jsonl"
}

processes() ( # that share the cores, with one thread each
    export OMP_NUM_THREADS=1
    lossbench pretrain --loss smi,barlow_twins --steps 16 --restart --out "$out/scaling-1.jsonl" || exit
    for way in local gather gram; do
        for w in 2 4; do
            torchrun --standalone --nproc-per-node $w -m lossbench pretrain --loss smi,barlow_twins \
                --set distribution=$way --steps 16 --restart --out "$out/scaling-$w.jsonl" || exit
        done
    done
    torchrun --standalone --nproc-per-node 4 -m lossbench run --suite distributed --world 4 --dim 2048 \
        --restart --out "$out/distributed.jsonl" || exit
    lossbench run --suite distributed --budget 25s --restart --out "$out/distributed-8.jsonl" # for its counts
)

probe() (
    export OMP_NUM_THREADS=1
    for seed in 0 1 2; do
        lossbench pretrain --implementation gram --epochs 5 --evaluate --set seed=$seed --restart \
            --out "$out/probe.jsonl" || exit
    done
)

frontier() {
    lossbench run --frontier --memory 4GB --loss smi,vicreg --dim 1024 --timeout 90s \
        --implementation reference,gram,compiled,chunked --restart --out "$out/frontier.jsonl"
}

noise() {
    of="--loss smi --implementation gram --batch 256 --dim 1024 --comparisons 200"
    # shellcheck disable=SC2086 - words
    lossbench noise $of --restart --out "$out/noise.jsonl" &&
        lossbench noise $of --slowdown 0.3 --neighbour --out "$out/noise.jsonl"
}

figures() {
    lossreport figure crossover "$out/scaling.jsonl" --out "$out/crossover.svg" &&
        lossreport figure scaling "$out/predictions.jsonl" --out "$out/scaling.svg" &&
        lossreport figure step "$out/pretrain.jsonl" --out "$out/step.svg"
}

keep() {
    folder=reports/results/$1
    mkdir -p "$folder"
    for file in "$out"/*.jsonl "$out"/*.svg; do
        case "$file" in *.[0-9]*.jsonl) continue ;; esac # set aside
        [ ! -e "$file" ] || cp "$file" "$folder" || return
    done
    lossreport page README.md docs/*.md docs/results/*.md
}

refuse() {
    echo "make.sh: error: $1" >&2
    exit 2
}

if [ "${1:-}" = keep ]; then
    [ -n "${2:-}" ] || refuse "keep needs the name of a folder"
    keep "$2"
    exit
fi
steps="efficiency fair implementations scaling third_parties predictions pretrain processes probe frontier noise figures"
for step in "$@"; do
    case " $steps " in
        *" $step "*) ;;
        *) refuse "no step $step: $steps, keep NAME" ;;
    esac
done
[ -z "$(git status --porcelain)" ] || refuse "files were edited: commit them first, so that runs name the code that made them"
failed=0
for step in ${*:-$steps}; do
    echo "== $step"
    "$step" || { echo "== $step failed (exit status $?): see above"; failed=1; }
done
exit $failed
