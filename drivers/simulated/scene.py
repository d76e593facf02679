"""The simulated table-top as MJCF: a small 5-joint arm with a parallel gripper, three cubes, one camera.

Lengths in m, angles in rad, masses in kg. Proportions are those of an SO-101; capsules, cylinders and boxes
only, so that a picture takes a third of a millisecond on a CPU.
"""

from __future__ import annotations

from typing import Any

from .physics import mujoco

COLOURS = {"red": (0.85, 0.12, 0.10), "green": (0.10, 0.70, 0.15), "blue": (0.12, 0.25, 0.90)}
"""Colour name -> RGB of the cube of that name."""

CUBE_HALF_M = 0.0125
"""Half the edge of a cube."""

JAW_OPENING_M = 0.03
"""Travel of each jaw; the gripper's 100 %."""

RANGES = {
    "shoulder_pan": (-1.93, 1.93),
    "shoulder_lift": (-1.73, 1.73),
    "elbow_flex": (-1.63, 1.63),
    "wrist_flex": (-1.93, 1.93),
    "wrist_roll": (-2.73, 2.73),
    "gripper": (0.0, JAW_OPENING_M),
}
"""Hard stops of each joint in robot joint order (rad; the gripper's jaw in m)."""

JOINTS = tuple(RANGES)
STEP_S = 0.005
"""Physics step."""


def build_model() -> Any:
    """The compiled scene, a `mujoco.MjModel`."""
    return mujoco.MjModel.from_xml_string(mjcf())


def _range(joint: str) -> str:
    low, high = RANGES[joint]
    return f'range="{low} {high}"'


def _cube(index: int, colour: str) -> str:
    r, g, b = COLOURS[colour]
    h = CUBE_HALF_M
    return f"""
    <body name="{colour}" pos="0.18 {0.08 * (index - 1)} {h}"><freejoint name="{colour}"/>
      <geom name="{colour}" type="box" size="{h} {h} {h}" mass="0.02" rgba="{r} {g} {b} 1"
            friction="1.2 0.02 0.001" condim="4"/>
    </body>"""


def _motor(joint: str) -> str:
    low, high = RANGES[joint]
    gains = 'kp="600" kv="10" forcerange="-6 6"'
    if joint != "gripper":
        gains = 'kp="40" dampratio="1" forcerange="-4 4"'
    return f'<position name="{joint}" joint="{joint}" ctrlrange="{low} {high}" {gains}/>'


def mjcf() -> str:
    """The scene's XML."""
    cubes = "".join(_cube(i, colour) for i, colour in enumerate(COLOURS))
    motors = "\n    ".join(_motor(joint) for joint in JOINTS)
    return f"""
<mujoco model="sim_arm">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{STEP_S}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <visual>
    <global offwidth="640" offheight="480"/>
    <quality shadowsize="0" offsamples="0"/>
    <headlight ambient="0.45 0.45 0.45" diffuse="0.5 0.5 0.5" specular="0 0 0"/>
    <map znear="0.02" zfar="5"/>
  </visual>
  <default>
    <joint damping="0.05" armature="0.01"/>
    <default class="arm"><geom rgba="0.93 0.80 0.30 1" density="600" friction="0.8"/></default>
    <default class="motor"><geom rgba="0.15 0.15 0.16 1" density="900"/></default>
    <default class="pad">
      <geom type="box" rgba="0.25 0.25 0.28 1" friction="1.5 0.05 0.001" condim="4" density="600"/>
    </default>
  </default>
  <worldbody>
    <light pos="0.4 0.3 1.2" dir="-0.3 -0.2 -1" diffuse="0.4 0.4 0.4" specular="0 0 0" castshadow="false"/>
    <geom name="table" type="box" size="0.45 0.45 0.02" pos="0.2 0 -0.02" rgba="0.72 0.70 0.66 1"
          friction="1 0.02 0.001"/>
    <camera name="front" pos="0.46 0 0.40" xyaxes="0 1 0 -0.80 0 0.60" fovy="40"/>
    <body name="base"><geom class="motor" type="box" size="0.04 0.035 0.03" pos="0 0 0.03"/>
      <body name="shoulder" pos="0 0 0.06" gravcomp="1">
        <joint name="shoulder_pan" axis="0 0 1" {_range("shoulder_pan")}/>
        <geom class="motor" type="cylinder" size="0.028 0.02" pos="0 0 0.02"/>
        <body name="upper" pos="0 0 0.055" gravcomp="1">
          <joint name="shoulder_lift" axis="0 1 0" {_range("shoulder_lift")}/>
          <geom class="arm" type="capsule" size="0.014" fromto="0 0 0 0 0 0.116"/>
          <body name="fore" pos="0 0 0.116" gravcomp="1">
            <joint name="elbow_flex" axis="0 1 0" {_range("elbow_flex")}/>
            <geom class="motor" type="box" size="0.018 0.02 0.018"/>
            <geom class="arm" type="capsule" size="0.013" fromto="0 0 0 0.135 0 0"/>
            <body name="wrist" pos="0.135 0 0" gravcomp="1">
              <joint name="wrist_flex" axis="0 1 0" {_range("wrist_flex")}/>
              <geom class="motor" type="box" size="0.018 0.016 0.014" pos="0.02 0 0"/>
              <body name="hand" pos="0.055 0 0" gravcomp="1">
                <joint name="wrist_roll" axis="1 0 0" {_range("wrist_roll")}/>
                <geom class="arm" type="box" size="0.008 0.034 0.012"/>
                <site name="tip" pos="0.075 0 0" size="0.004" rgba="1 1 1 0"/>
                <body name="jaw_l" pos="0.008 0 0" gravcomp="1">
                  <joint name="gripper" type="slide" axis="0 1 0" {_range("gripper")} damping="2"/>
                  <geom name="jaw_l" class="pad" size="0.04 0.004 0.009" pos="0.038 0.004 0"/>
                </body>
                <body name="jaw_r" pos="0.008 0 0" gravcomp="1">
                  <joint name="gripper_r" type="slide" axis="0 -1 0" {_range("gripper")} damping="2"/>
                  <geom name="jaw_r" class="pad" size="0.04 0.004 0.009" pos="0.038 -0.004 0"/>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>{cubes}
  </worldbody>
  <equality><joint joint1="gripper" joint2="gripper_r" polycoef="0 1 0 0 0" solref="0.01 1"/></equality>
  <contact>
    <exclude body1="base" body2="upper"/>
    <exclude body1="upper" body2="wrist"/>
  </contact>
  <actuator>
    {motors}
  </actuator>
</mujoco>"""
